// Every algorithm proved for 1 to 64 ranks; and that the simulator finds what is wrong with wrong schedules.
#include "comm/simulator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <string>
#include <vector>

#include "comm/algorithms/algorithm.h"

namespace cohort::comm {
namespace {

using ::testing::HasSubstr;

enum class Shape { kZero, kOne, kFewerThanRanks, kUneven, kLong };
constexpr Shape kShapes[] = {Shape::kZero, Shape::kOne, Shape::kFewerThanRanks, Shape::kUneven, Shape::kLong};

size_t Total(Shape shape, int size) {
  switch (shape) {
    case Shape::kZero:
      return 0;
    case Shape::kOne:
      return 1;
    case Shape::kFewerThanRanks:
      return static_cast<size_t>(size) / 2;
    case Shape::kUneven:
      return 3 * static_cast<size_t>(size) + 1;
    case Shape::kLong:
      return 40 * static_cast<size_t>(size) + 7;
  }
  return 0;
}

// Of rank `rank`; uneven in its own way for the operations with counts.
size_t Share(Shape shape, int rank, int size) {
  switch (shape) {
    case Shape::kZero:
      return 0;
    case Shape::kOne:
      return rank == size / 2 ? 1 : 0;
    case Shape::kFewerThanRanks:
      return rank % 2;
    case Shape::kUneven:
      return rank % 5 == 3 ? 0 : static_cast<size_t>(rank * 7 % 4);
    case Shape::kLong:
      return 40;
  }
  return 0;
}

std::vector<Collective> Calls(Operation operation, Shape shape, int size, bool in_place, int root) {
  Collective c;
  c.operation = operation;
  c.size = size;
  c.root = root;
  c.in_place = in_place;
  if (operation == Operation::kAllReduce || operation == Operation::kBroadcast) c.count = Total(shape, size);
  if (operation == Operation::kReduceScatter || operation == Operation::kAllGather) {
    for (int rank = 0; rank < size; ++rank) c.counts.push_back(Share(shape, rank, size));
  }
  std::vector<Collective> calls = ForAllRanks(c);
  if (operation == Operation::kAllToAll || operation == Operation::kAllToAllV) {
    const bool equal = operation == Operation::kAllToAll;
    for (int from = 0; from < size; ++from) {
      for (int to = 0; to < size; ++to) {
        const size_t count = equal ? Total(shape, size) % 23 : Share(shape, (from + 3 * to) % size, size);
        calls[from].counts.push_back(count);
        calls[to].recv_counts.push_back(count);
      }
    }
  }
  return calls;
}

absl::StatusOr<Simulation> Prove(const Algorithm& algorithm, std::vector<Collective> calls,
                                 const SimulatedMachine& machine = {}, size_t element_bytes = 4) {
  std::vector<Schedule> schedules;
  for (Collective& call : calls) schedules.push_back(algorithm.make(call));
  return Simulate(calls, schedules, element_bytes, machine);
}

class Algorithms : public ::testing::TestWithParam<size_t> {};

TEST_P(Algorithms, ProvedFrom1To64Ranks) {
  const Algorithm& algorithm = comm::Algorithms()[GetParam()];
  const Operation operation = algorithm.operation;
  for (int size = 1; size <= 64; ++size) {
    for (const Shape shape : kShapes) {
      // Long calls exercise pieces; every size does not need them.
      if (shape == Shape::kLong && size > 9 && size % 16 != 0) continue;
      const bool has_in_place = operation == Operation::kAllReduce || operation == Operation::kAllGather;
      for (int in_place = 0; in_place <= (has_in_place ? 1 : 0); ++in_place) {
        for (const int root : {0, size - 1}) {
          if (root != 0 && operation != Operation::kBroadcast) continue;
          std::vector<Collective> calls = Calls(operation, shape, size, in_place != 0, root);
          if (shape == Shape::kLong && algorithm.pipelined) {
            for (Collective& call : calls) call.piece = 9;
          }
          const auto result = Prove(algorithm, std::move(calls));
          ASSERT_TRUE(result.ok()) << algorithm.name << ", " << size << " ranks, shape "
                                   << static_cast<int>(shape) << (in_place ? ", in place" : "") << ", root "
                                   << root << ": " << result.status();
        }
      }
      if (operation == Operation::kBarrier) break;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, Algorithms, ::testing::Range(size_t{0}, comm::Algorithms().size()),
                         [](const auto& info) {
                           const Algorithm& algorithm = comm::Algorithms()[info.param];
                           std::string name = std::string(Name(algorithm.operation)) + "_" + algorithm.name;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

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
