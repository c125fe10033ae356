// Prices against the simulator, which runs the schedules themselves; and at size.
#include "comm/pricing.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "comm/algorithms/policy.h"
#include "tests/comm/algorithm_calls.h"

namespace cohort::comm {
namespace {

std::shared_ptr<const HostMap> EvenHosts(int hosts, int ranks) {
  std::vector<int> host_of;
  for (int rank = 0; rank < hosts * ranks; ++rank) host_of.push_back(rank / ranks);
  return std::make_shared<const HostMap>(host_of);
}

// Hosts of one, two, three, four ranks and again.
std::shared_ptr<const HostMap> UnevenHosts(int hosts) {
  std::vector<int> host_of;
  for (int host = 0; host < hosts; ++host) host_of.insert(host_of.end(), 1 + host % 4, host);
  return std::make_shared<const HostMap>(host_of);
}

Machine TwoLevels(std::shared_ptr<const HostMap> hosts, int rails) {
  Machine machine;
  machine.hosts = std::move(hosts);
  const SimulatedMachine defaults;
  machine.price[0] = machine.price[1] = machine.price[2] = defaults.local;
  machine.price[3] = machine.price[4] = defaults.remote;
  machine.rails = rails;
  machine.local_seconds_per_byte = defaults.local_seconds_per_byte;
  return machine;
}

// The calls that PriceOf prices: equal parts, rank 0 as the root.
std::vector<Collective> CallsOf(const Algorithm& algorithm, const Machine& machine, size_t count,
                                size_t element_bytes) {
  const int size = machine.hosts->size();
  Collective c;
  c.operation = algorithm.operation;
  c.size = size;
  c.hosts = machine.hosts;
  c.count = count;
  if (algorithm.pipelined) c.piece = policy::kPieceBytes / element_bytes;
  const bool each = c.operation == Operation::kAllToAll || c.operation == Operation::kAllToAllV;
  for (int rank = 0; rank < size; ++rank) {
    c.counts.push_back(each ? count / size : algorithms::Part(count, size, rank).count);
  }
  c.recv_counts = c.counts;
  if (c.operation == Operation::kAllToAllV) {
    c.matrix = std::make_shared<const std::vector<size_t>>(static_cast<size_t>(size) * size, count / size);
  }
  return ForAllRanks(c);
}

double SimulatedSeconds(const Algorithm& algorithm, const Machine& machine, size_t count,
                        Simulation* simulation) {
  const auto calls = CallsOf(algorithm, machine, count, 4);
  std::vector<Schedule> schedules;
  for (const Collective& call : calls) schedules.push_back(algorithm.make(call));
  SimulatedMachine simulated;
  simulated.hosts = machine.hosts;
  simulated.shared_link = machine.rails == 1;
  const auto result = Simulate(calls, schedules, 4, simulated);
  EXPECT_TRUE(result.ok()) << algorithm.name << ": " << result.status();
  if (!result.ok()) return 0;
  *simulation = *result;
  return result->seconds;
}

// How far a price may be from the simulated time, as a share of it.
constexpr double kTolerance = 0.06;

class Prices : public ::testing::TestWithParam<size_t> {};

TEST_P(Prices, AgreeWithTheSimulator) {
  const Algorithm& algorithm = Algorithms()[GetParam()];
  for (const auto& hosts :
       {EvenHosts(4, 4), EvenHosts(16, 4), UnevenHosts(10), EvenHosts(1, 8), EvenHosts(9, 1)}) {
    for (const size_t unit : {size_t{4}, size_t{1} << 10, size_t{1} << 18}) {
      const size_t count = unit * hosts->size();
      const Machine machine = TwoLevels(hosts, 0);
      Simulation simulation;
      const double simulated = SimulatedSeconds(algorithm, machine, count, &simulation);
      const auto price = PriceOf(algorithm, machine, count, 4);
      ASSERT_TRUE(price.ok()) << price.status();
      const std::string where = absl::StrCat(algorithm.name, ", ", hosts->size(), " ranks on ",
                                             hosts->num_hosts(), " hosts, ", count);
      EXPECT_NEAR(price->seconds / simulated, 1, kTolerance) << where;
      EXPECT_NEAR(price->bytes, static_cast<double>(simulation.bytes), 1) << where;
      EXPECT_NEAR(price->remote_bytes, static_cast<double>(simulation.remote_bytes), 1) << where;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, Prices, ::testing::Range(size_t{0}, Algorithms().size()));

// Rounds that repeat themselves, priced by their slowest member, cost what their messages do one by one.
TEST(Prices, OfRepeatedRoundsAgreeWithReplay) {
  for (const Algorithm& algorithm : Algorithms()) {
    const std::string name = algorithm.name;
    if (name != "ring" && name != "pairwise") continue;
    for (const auto& hosts : {EvenHosts(32, 8), UnevenHosts(100)}) {
      const Machine machine = TwoLevels(hosts, 0);
      for (const size_t unit : {size_t{16}, size_t{1} << 16}) {
        const size_t count = unit * hosts->size();
        const auto replay = PriceOf(algorithm, machine, count, 4),
                   slowest = PriceOf(algorithm, machine, count, 4, 0);
        ASSERT_TRUE(replay.ok() && slowest.ok());
        EXPECT_NEAR(slowest->seconds / replay->seconds, 1, 0.1) << Name(algorithm.operation) << " " << name;
        EXPECT_DOUBLE_EQ(slowest->bytes, replay->bytes) << Name(algorithm.operation) << " " << name;
      }
    }
  }
}

TEST(Prices, OfAHundredThousandRanks) {
  const Machine machine = TwoLevels(EvenHosts(12'500, 8), 8);
  for (const char* name : {"ring", "recursive_doubling"}) {
    const auto price = PriceOf(*FindAlgorithm(Operation::kAllReduce, name), machine, 1 << 20, 4);
    ASSERT_TRUE(price.ok());
    EXPECT_GT(price->seconds, 0);
  }
}

}  // namespace
}  // namespace cohort::comm
