// The helper that other tests rely on: it must not pass what fails.
#include "tests/support/ranks.h"

#include <gtest/gtest-spi.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include "absl/time/clock.h"

namespace cohort::testing {
namespace {

TEST(Ranks, FailuresOfChildrenFailTheTest) {
  // In a process of its own: its failures are not ours.
  RunProcesses(1, [](int, int, const std::string&) {
    RunRanks(2, [](comm::Communicator& comm) { EXPECT_EQ(comm.rank(), 0) << "(as it should)"; });
    const auto* info = ::testing::UnitTest::GetInstance()->current_test_info();
    _exit(info->result()->Failed() ? 0 : 1);
  });
}

TEST(Ranks, DeathsOfChildrenFailTheTest) {
  const auto die = [](int rank, int, const std::string&) {
    if (rank == 1) kill(getpid(), SIGKILL);
  };
  EXPECT_NONFATAL_FAILURE(RunProcesses(2, die), "rank 1 was ended by signal 9");
  RunProcesses(2, die, {.victims = {1}});
  // A sanitizer that has found something ends a process with a code of its own: also that of a victim.
  const auto found = [](int, int, const std::string&) { _exit(66); };
  EXPECT_NONFATAL_FAILURE(RunProcesses(1, found, {.victims = {0}}), "rank 0 exited with code 66");
}

TEST(Ranks, HangingChildrenFailTheTest) {
  const auto hang = [](int rank, int, const std::string&) {
    if (rank == 0) absl::SleepFor(absl::Seconds(30));
  };
  EXPECT_NONFATAL_FAILURE(RunProcesses(2, hang, {.limit = absl::Milliseconds(200)}), "rank 0 did not end");
}

}  // namespace
}  // namespace cohort::testing
