// That the simulator prices schedules, and finds what is wrong with wrong ones.
#include "comm/simulator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "comm/algorithms/algorithm.h"
#include "tests/comm/algorithm_calls.h"

namespace cohort::comm {
namespace {

using ::testing::HasSubstr;

TEST(Simulator, PricesTheRingAsTheFormulaDoes) {
  // 2 (p-1) (alpha + n/p beta) for chunks that follow each other (Thakur et al., 2005).
  SimulatedMachine machine;
  machine.local = {1e-6, 1e-9};
  const auto result = Prove(*FindAlgorithm(Operation::kAllReduce, "ring"),
                            Calls(Operation::kAllReduce, Shape::kLong, 8, false, 0), machine, 1000);
  ASSERT_TRUE(result.ok()) << result.status();
  const double chunk = (40 * 8 + 7) / 8.0 * 1000;
  EXPECT_NEAR(result->seconds, 14 * (1e-6 + chunk * 1e-9), 0.05 * result->seconds);
  EXPECT_EQ(result->bytes, 14u * 327 * 1000);
  EXPECT_EQ(result->remote_bytes, 0u);
}

TEST(Simulator, CountsBytesBetweenHosts) {
  SimulatedMachine machine;
  machine.hosts = std::make_shared<const HostMap>(std::vector<int>{0, 0, 1, 1});
  const auto result = Prove(*FindAlgorithm(Operation::kBroadcast, "chain"),
                            Calls(Operation::kBroadcast, Shape::kLong, 4, false, 0), machine, 4);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->remote_bytes, 167u * 4);
  EXPECT_EQ(result->bytes, 3u * 167 * 4);
}

// Two ranks that exchange two elements: input to output.
std::vector<Collective> Exchange() {
  Collective c;
  c.operation = Operation::kAllReduce;
  c.size = 2;
  c.count = 2;
  return ForAllRanks(c);
}
constexpr Slice kIn{Buffer::kInput, 0, 2}, kOut{Buffer::kOutput, 0, 2};

void ExpectFound(const std::function<void(int rank, ScheduleBuilder&)>& make, const std::string& what) {
  std::vector<Schedule> schedules;
  for (int rank = 0; rank < 2; ++rank) {
    ScheduleBuilder builder(2, 2);
    make(rank, builder);
    schedules.push_back(std::move(builder).Build());
  }
  const auto result = Simulate(Exchange(), schedules);
  EXPECT_THAT(std::string(result.status().message()), HasSubstr(what));
}

TEST(Simulator, AcceptsTheSimplestExchange) {
  ExpectFound(
      [](int rank, ScheduleBuilder& b) {
        b.Send(1 - rank, 0, kIn);
        b.RecvReduce(1 - rank, 0, kIn, kOut);
      },
      "");
}

TEST(Simulator, FindsDeadlockOfOrderedSends) {
  ExpectFound(
      [](int rank, ScheduleBuilder& b) {
        const StepId sent = b.Send(1 - rank, 0, kIn);
        b.RecvReduce(1 - rank, 0, kIn, kOut, {sent});
      },
      "deadlock");
}

TEST(Simulator, FindsMissingPartner) {
  ExpectFound(
      [](int rank, ScheduleBuilder& b) { b.RecvReduce(1 - rank, static_cast<uint32_t>(rank), kIn, kOut); },
      "deadlock");
}

TEST(Simulator, FindsRaces) {
  ExpectFound(
      [](int rank, ScheduleBuilder& b) {
        const StepId copied = b.Copy(kIn, kOut);
        b.Send(1 - rank, 0, kOut, {copied});
        b.RecvReduce(1 - rank, 0, kOut, kOut, {copied});
      },
      "nothing orders them");
}

TEST(Simulator, FindsUndefinedReads) {
  ExpectFound(
      [](int rank, ScheduleBuilder& b) {
        const Slice scratch = b.Scratch(2);
        b.Send(1 - rank, 0, scratch);
        b.Recv(1 - rank, 0, kOut);
      },
      "never written");
}

TEST(Simulator, FindsSizesThatDiffer) {
  ExpectFound(
      [](int rank, ScheduleBuilder& b) {
        b.Send(1 - rank, 0, kIn.Part(0, 1));
        b.RecvReduce(1 - rank, 0, kIn, kOut);
      },
      "expects 2");
}

TEST(Simulator, FindsContributionsThatCountTwiceOrNotAtAll) {
  ExpectFound(
      [](int rank, ScheduleBuilder& b) {
        b.Send(1 - rank, 0, kIn);
        const StepId got = b.RecvReduce(1 - rank, 0, kIn, kOut);
        if (rank == 1) b.Reduce(kIn, kOut, {got});
      },
      "rank 1: output element 0 is r0[0] + 2*r1[0]");
  ExpectFound([](int, ScheduleBuilder& b) { b.Copy(kIn, kOut); }, "output element 0 is r0[0], not");
  ExpectFound([](int, ScheduleBuilder& b) { b.Copy(kIn.Part(0, 1), kOut.Part(0, 1)); }, "never written");
}

TEST(Simulator, FindsSumsInDifferentOrders) {
  Collective c;
  c.operation = Operation::kAllReduce;
  c.size = 3;
  c.count = 1;
  std::vector<Schedule> schedules;
  for (int rank = 0; rank < 3; ++rank) {  // each begins with its own
    ScheduleBuilder b(1, 1);
    const Slice in{Buffer::kInput, 0, 1}, out{Buffer::kOutput, 0, 1};
    b.Send((rank + 1) % 3, 0, in);
    b.Send((rank + 2) % 3, 0, in);
    const StepId first = b.RecvReduce((rank + 1) % 3, 0, in, out);
    b.RecvReduce((rank + 2) % 3, 0, out, out, {first});
    schedules.push_back(std::move(b).Build());
  }
  EXPECT_THAT(std::string(Simulate(ForAllRanks(c), schedules).status().message()),
              HasSubstr("rank 1: output element 0 is summed in another order"));
}

TEST(Simulator, FindsMalformedSchedules) {
  ExpectFound([](int, ScheduleBuilder& b) { b.Copy(kIn, {Buffer::kOutput, 1, 2}); }, "leaves a buffer");
  ExpectFound([](int, ScheduleBuilder& b) { b.Send(2, 0, kIn); }, "peer 2");
  ExpectFound(
      [](int rank, ScheduleBuilder& b) {
        b.Send(1 - rank, 0, kIn);
        b.Send(1 - rank, 0, kIn);
      },
      "used twice");
}

TEST(Simulator, FindsABarrierThatIsNone) {
  Collective c;
  c.operation = Operation::kBarrier;
  c.size = 3;
  std::vector<Schedule> schedules;
  for (int rank = 0; rank < 3; ++rank) {
    ScheduleBuilder builder(0, 0);
    if (rank == 0) builder.Signal(1, 0);
    if (rank == 1) builder.Await(0, 0);
    schedules.push_back(std::move(builder).Build());
  }
  EXPECT_THAT(std::string(Simulate(ForAllRanks(c), schedules).status().message()),
              HasSubstr("rank 0 leaves the barrier without word of rank 1"));
}

}  // namespace
}  // namespace cohort::comm
