// Calls that come again: the run of the last one is used again only where nobody has it any more.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <thread>
#include <vector>

#include "comm/communicator.h"
#include "comm/doorbell.h"
#include "comm/policy.h"
#include "comm/ticks.h"
#include "tests/support/ranks.h"

namespace cohort::comm {
namespace {

using cohort::testing::RunRanks;
using ::testing::Each;

// All-reduces of a number that differs from call to call.
struct Sum {
  std::vector<double> send, recv;
  Work work;

  Sum(Communicator& comm, size_t count, int call) : send(count, comm.rank() + call), recv(count, -1) {
    work = comm.AllReduce(send.data(), recv.data(), count, DataType::kF64);
  }
  void Check(const Communicator& comm, int call) const {
    ASSERT_EQ(work.Wait(), absl::OkStatus());
    const double ranks = comm.size();
    ASSERT_THAT(recv, Each(ranks * (ranks - 1) / 2 + ranks * call));
  }
};

TEST(CallKinds, EqualCallsMayBeInFlightTogether) {
  RunRanks(3, [](Communicator& comm) {
    for (const size_t count : {1, 1000, 100'000}) {
      std::vector<std::unique_ptr<Sum>> sums;
      for (int call = 0; call < 8; ++call) sums.push_back(std::make_unique<Sum>(comm, count, call));
      for (int call = 0; call < 8; ++call) sums[call]->Check(comm, call);
    }
  });
}

TEST(CallKinds, HandlesOfPastCallsKeepTheirStatus) {
  RunRanks(2, [](Communicator& comm) {
    const Sum first(comm, 10, 1);
    first.Check(comm, 1);
    for (int call = 2; call < 50; ++call) Sum(comm, 10, call).Check(comm, call);
    first.Check(comm, 1);  // still over, still OK, and its output still its own
  });
}

TEST(CallKinds, MoreKindsThanAreRemembered) {
  RunRanks(2, [](Communicator& comm) {
    for (int round = 0; round < 3; ++round) {
      for (size_t count = 1; count < 2 * policy::kScheduleCache; ++count) {
        Sum(comm, count, round).Check(comm, round);
      }
    }
  });
}

TEST(CallKinds, TypesReductionsAndRootsAreKindsOfTheirOwn) {
  RunRanks(3, [](Communicator& comm) {
    for (int round = 0; round < 2; ++round) {
      const float mine = static_cast<float>(comm.rank() + 1);
      float result = 0;
      ASSERT_EQ(comm.AllReduce(&mine, &result, 1, DataType::kF32).Wait(), absl::OkStatus());
      EXPECT_EQ(result, 6);
      ASSERT_EQ(comm.AllReduce(&mine, &result, 1, DataType::kF32, ReduceOp::kMax).Wait(), absl::OkStatus());
      EXPECT_EQ(result, 3);
      const int32_t whole = comm.rank() + 2;
      int32_t product = 0;
      ASSERT_EQ(comm.AllReduce(&whole, &product, 1, DataType::kI32, ReduceOp::kProduct).Wait(),
                absl::OkStatus());
      EXPECT_EQ(product, 24);
      for (int root = 0; root < comm.size(); ++root) {
        float said = comm.rank() == root ? 10.0f + static_cast<float>(root) : 0;
        ASSERT_EQ(comm.Broadcast(&said, 1, DataType::kF32, root).Wait(), absl::OkStatus());
        EXPECT_EQ(said, 10.0f + static_cast<float>(root));
      }
    }
  });
}

TEST(CallKinds, ThreadsCallTheSameOnGroupsOfTheirOwn) {
  RunRanks(2, [](Communicator& comm) {
    const auto other = comm.Split(0, comm.rank());
    ASSERT_TRUE(other.ok()) << other.status();
    const auto calls = [](Communicator& group) {
      for (int call = 0; call < 2000; ++call) Sum(group, 4, call).Check(group, call);
    };
    std::thread thread([&] { calls(**other); });
    calls(comm);
    thread.join();
  });
}

TEST(Ticks, TellTheTime) {
  const int64_t before = NowNanos();
  const int64_t ticks = NowTicks();
  const int64_t after = NowNanos();
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_GE(NanosOfTicks(ticks), before - 1'000'000);
  EXPECT_LE(NanosOfTicks(ticks), after + 1'000'000);
  EXPECT_LT(NanosOfTicks(ticks), NanosOfTicks(NowTicks()));
}

}  // namespace
}  // namespace cohort::comm
