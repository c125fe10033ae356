#include "tests/support/ranks.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <new>

#include "absl/time/clock.h"
#include "comm/check.h"
#include "comm/rendezvous.h"

namespace cohort::testing {
namespace {

// Ends of a child that have a meaning.
enum ExitCode { kPassed = 0, kFailed = 10, kThrew = 11 };

[[noreturn]] void RunChild(int rank, int size, const std::string& folder, pid_t parent,
                           const std::function<void(int, int, const std::string&)>& body) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(kFailed);
  int code = kPassed;
  try {
    body(rank, size, folder);
    const auto* info = ::testing::UnitTest::GetInstance()->current_test_info();
    if (info != nullptr && info->result()->Failed()) code = kFailed;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "rank %d threw: %s\n", rank, error.what());
    code = kThrew;
  }
  if (code == kFailed) std::fprintf(stderr, "[ rank %d of %d failed ]\n", rank, size);
  std::fflush(stdout);
  std::fflush(stderr);
  // Not exit: handlers of the parent, among them gtest's, must not run again.
  _exit(code);
}

void Judge(int rank, int status, const RankOptions& options) {
  if (std::find(options.victims.begin(), options.victims.end(), rank) != options.victims.end()) {
    // A code that is none of the above is a sanitizer's, which has found something.
    if (WIFSIGNALED(status) || WEXITSTATUS(status) == kPassed || WEXITSTATUS(status) == kFailed ||
        WEXITSTATUS(status) == kThrew)
      return;
  }
  if (WIFSIGNALED(status)) {
    ADD_FAILURE() << "rank " << rank << " was ended by signal " << WTERMSIG(status);
  } else if (WEXITSTATUS(status) == kFailed) {
    ADD_FAILURE() << "rank " << rank << " failed: see above";
  } else if (WEXITSTATUS(status) != kPassed) {
    ADD_FAILURE() << "rank " << rank << " exited with code " << WEXITSTATUS(status);
  }
}

}  // namespace

void RunProcesses(int size, const std::function<void(int, int, const std::string&)>& body,
                  const RankOptions& options) {
  std::string pattern = (std::filesystem::temp_directory_path() / "cohort-ranks-XXXXXX").string();
  ASSERT_NE(mkdtemp(pattern.data()), nullptr) << "no temporary folder";
  const std::string folder = pattern;
  std::fflush(stdout);
  std::fflush(stderr);
  const pid_t parent = getpid();
  std::vector<pid_t> children(size, -1);
  for (int rank = 0; rank < size; ++rank) {
    const pid_t child = fork();
    if (child == 0) RunChild(rank, size, folder, parent, body);
    EXPECT_GT(child, 0) << "fork failed";
    children[rank] = child;
  }
  const absl::Time deadline = absl::Now() + options.limit;
  int left = static_cast<int>(std::count_if(children.begin(), children.end(), [](pid_t c) { return c > 0; }));
  bool killed = false;
  while (left > 0) {
    for (int rank = 0; rank < size; ++rank) {
      if (children[rank] <= 0) continue;
      int status = 0;
      if (waitpid(children[rank], &status, WNOHANG) != children[rank]) continue;
      children[rank] = -1;
      --left;
      if (!killed) Judge(rank, status, options);
    }
    if (left > 0 && !killed && absl::Now() > deadline) {
      killed = true;
      for (int rank = 0; rank < size; ++rank) {
        if (children[rank] <= 0) continue;
        ADD_FAILURE() << "rank " << rank << " did not end within " << options.limit;
        kill(children[rank], SIGKILL);
      }
    }
    absl::SleepFor(absl::Milliseconds(1));
  }
  std::error_code ignored;
  std::filesystem::remove_all(folder, ignored);
}

void RunRanks(int size, const std::function<void(comm::Communicator&)>& body, const RankOptions& options) {
  SharedCounter created;
  RunProcesses(
      size,
      [&](int rank, int ranks, const std::string& folder) {
        // On a busy machine processes take their time to start: a short timeout is for the body.
        auto communicator =
            comm::Communicator::Create(comm::FileRendezvous(folder + "/meet", rank, ranks), {});
        ASSERT_TRUE(communicator.ok()) << communicator.status();
        // A body may kill its rank at once, which must not spoil another's beginning.
        created.Add();
        ASSERT_TRUE(created.WaitFor(ranks, options.limit));
        (*communicator)->SetTimeout(options.timeout);
        body(**communicator);
      },
      options);
}

SharedCounter::SharedCounter() {
  void* memory = mmap(nullptr, sizeof(*value_), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  COHORT_CHECK(memory != MAP_FAILED, "no memory to share");
  value_ = new (memory) std::atomic<int>(0);
}

SharedCounter::~SharedCounter() { munmap(value_, sizeof(*value_)); }

bool SharedCounter::WaitFor(int value, absl::Duration limit) const {
  const absl::Time give_up = absl::Now() + limit;
  while (Get() < value && absl::Now() < give_up) absl::SleepFor(absl::Milliseconds(1));
  return Get() >= value;
}

}  // namespace cohort::testing
