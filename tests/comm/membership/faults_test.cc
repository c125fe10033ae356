// Random faults, SIGKILL and SIGSTOP, in the middle of random collectives of eight ranks: nobody hangs, nobody gets a
// wrong result with a success, and the survivors edit the group and go on.
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "comm/communicator.h"
#include "tests/support/ranks.h"

namespace cohort::comm {
namespace {

using cohort::testing::RankOptions;
using cohort::testing::RunRanks;
using cohort::testing::SharedCounter;

constexpr int kRanks = 8;

// One collective of a kind, with its result checked where it says that it succeeded.
absl::Status CallOnce(Communicator& comm, int kind, size_t count) {
  const int size = comm.size(), rank = comm.rank();
  std::vector<int32_t> a(count * size, rank + 1), b(count * size, -1);
  const std::vector<size_t> counts(size, count);
  const int sum = size * (size + 1) / 2;
  absl::Status status;
  bool right = true;
  const auto all_are = [&](size_t from, size_t n, int value) {
    right = right && std::all_of(b.begin() + from, b.begin() + from + n, [&](int x) { return x == value; });
  };
  switch (kind) {
    case 0:
      status = comm.AllReduce(a.data(), b.data(), count * size, DataType::kI32).Wait();
      if (status.ok()) all_are(0, count * size, sum);
      break;
    case 1:
      status = comm.ReduceScatter(a.data(), b.data(), counts, DataType::kI32).Wait();
      if (status.ok()) all_are(0, count, sum);
      break;
    case 2:
    case 3:
      status = kind == 2 ? comm.AllGather(a.data(), b.data(), counts, DataType::kI32).Wait()
                         : comm.AllToAll(a.data(), b.data(), count, DataType::kI32).Wait();
      for (int peer = 0; status.ok() && peer < size; ++peer) all_are(peer * count, count, peer + 1);
      break;
    case 4:
      if (rank == size - 1) std::fill(b.begin(), b.end(), 7);
      status = comm.Broadcast(b.data(), count, DataType::kI32, size - 1).Wait();
      if (status.ok()) all_are(0, count, 7);
      break;
    default:
      status = comm.Barrier().Wait();
  }
  EXPECT_TRUE(right) << "collective " << kind << " of " << count << " elements is wrong";
  return status;
}

TEST(Faults, RandomFaultsInRandomCollectives) {
  // COHORT_FAULTS=200 for the long run.
  const char* wish = std::getenv("COHORT_FAULTS");
  const int faults = wish == nullptr ? 3 : std::atoi(wish);
  std::mt19937 random(20261);
  std::vector<int> milliseconds;
  for (int fault = 0; fault < faults; ++fault) {
    const int kind = static_cast<int>(random() % 6), victim = static_cast<int>(random() % kRanks);
    const size_t count = random() % 2 == 0 ? 50 : 30'000;
    const bool stops = random() % 2 == 0;
    const int delay = static_cast<int>(random() % 20'000);
    SharedCounter started, hurt, worst;
    RankOptions options;
    options.victims = {victim};
    options.timeout = absl::Milliseconds(300);
    const absl::Time zero = absl::Now();
    const auto micros = [&] { return static_cast<int>(absl::ToInt64Microseconds(absl::Now() - zero)); };
    RunRanks(
        kRanks,
        [&](Communicator& comm) {
          const bool is_victim = comm.rank() == victim;
          if (is_victim && fork() == 0) {
            started.WaitFor(kRanks);
            absl::SleepFor(absl::Microseconds(delay));
            hurt.Add(micros());
            kill(getppid(), stops ? SIGSTOP : SIGKILL);
            // The stopped one must not spoil anything when it is back; then it ends.
            absl::SleepFor(absl::Milliseconds(900));
            kill(getppid(), SIGCONT);
            absl::SleepFor(absl::Milliseconds(100));
            kill(getppid(), SIGKILL);
            _exit(0);
          }
          started.Add();
          while (CallOnce(comm, kind, count).ok()) {
          }
          while (comm.size() == kRanks) {
            const auto change = comm.Shrink({.patience = absl::Milliseconds(200)});
            if (is_victim) absl::SleepFor(absl::Seconds(30));
            ASSERT_TRUE(change.ok()) << change.status();
            // Somebody was late, came back in time and is then lost all the same.
            while (comm.size() == kRanks && CallOnce(comm, kind, count).ok()) {
            }
          }
          EXPECT_EQ(comm.size(), kRanks - 1);
          for (int each = 0; each < 6; ++each) EXPECT_EQ(CallOnce(comm, each, count), absl::OkStatus());
          if (comm.rank() == 0) worst.Add(micros() - hurt.Get());
        },
        options);
    milliseconds.push_back(worst.Get() / 1000);
  }
  std::sort(milliseconds.begin(), milliseconds.end());
  std::printf("%d faults: working again after %d ms (median), %d ms (longest)\n", faults,
              milliseconds[milliseconds.size() / 2], milliseconds.back());
}

}  // namespace
}  // namespace cohort::comm
