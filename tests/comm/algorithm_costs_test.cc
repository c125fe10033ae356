// What algorithms cost: messages, bytes between hosts and simulated time, as theory says.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include "comm/algorithms/algorithm.h"
#include "comm/simulator.h"
#include "tests/comm/algorithm_calls.h"

namespace cohort::comm {
namespace {

std::shared_ptr<const HostMap> HostsOf(const std::vector<int>& ranks) {  // ranks of each host
  std::vector<int> host_of;
  for (size_t host = 0; host < ranks.size(); ++host) host_of.insert(host_of.end(), ranks[host], host);
  return std::make_shared<const HostMap>(host_of);
}

// An operation on `total` elements over hosts with these numbers of ranks; with counts, all alike but for the
// last.
std::vector<Collective> CallsOn(Operation operation, const SimulatedMachine& machine, size_t total,
                                size_t piece = 0) {
  Collective c;
  c.operation = operation;
  c.size = machine.hosts->size();
  c.count = total;
  c.piece = piece;
  c.hosts = machine.hosts;
  for (int rank = 0; rank < c.size; ++rank) {
    c.counts.push_back(total / c.size + (rank + 1 == c.size ? total % c.size : 0));
  }
  return ForAllRanks(c);
}

Simulation Cost(Operation operation, const char* name, const SimulatedMachine& machine, size_t total,
                size_t piece = 0) {
  const auto result =
      Prove(*FindAlgorithm(operation, name), CallsOn(operation, machine, total, piece), machine);
  EXPECT_TRUE(result.ok()) << name << ": " << result.status();
  return result.value_or(Simulation{});
}

struct HostTraffic {
  size_t elements = 0, messages = 0;
};
// What each host sends to others.
std::vector<HostTraffic> Sent(Operation operation, const char* name, const SimulatedMachine& machine,
                              size_t total) {
  std::vector<HostTraffic> traffic(machine.hosts->num_hosts());
  for (const Collective& call : CallsOn(operation, machine, total)) {
    for (const Step& step : FindAlgorithm(operation, name)->make(call).steps) {
      if (step.kind != StepKind::kSend || machine.hosts->SameHost(call.rank, step.peer)) continue;
      HostTraffic& host = traffic[machine.hosts->host_of(call.rank)];
      host.elements += step.source.count;
      ++host.messages;
    }
  }
  return traffic;
}

int Rounds(int size) { return static_cast<int>(std::ceil(std::log2(size))); }

TEST(AlgorithmCosts, HierarchicalAllReduceSendsTheFewestBytesFromEveryHost) {
  for (const std::vector<int>& ranks : std::vector<std::vector<int>>{
           {2, 2}, {4, 4, 4, 4}, {1, 1, 1}, {1, 7}, {3, 1, 4}, {2, 8, 5, 1, 1}, {6, 6, 6, 6, 6, 6, 6, 6}}) {
    SimulatedMachine machine;
    machine.hosts = HostsOf(ranks);
    const size_t hosts = ranks.size(), most = machine.hosts->most_on_a_host();
    const size_t n = hosts * most * 512;
    for (const char* name : {"hierarchical", "hierarchical_direct", "ho_ring"}) {
      for (const HostTraffic& host : Sent(Operation::kAllReduce, name, machine, n)) {
        EXPECT_EQ(host.elements, 2 * n * (hosts - 1) / hosts) << name << " on " << hosts << " hosts";
      }
    }
    // A rail's message of a round is cut in two where it wraps around.
    for (const HostTraffic& host : Sent(Operation::kAllReduce, "hierarchical", machine, n)) {
      EXPECT_LE(host.messages, most * 2 * 2 * Rounds(static_cast<int>(hosts)));
    }
  }
}

TEST(AlgorithmCosts, NvrarSendsOneMessageARoundAndRail) {
  SimulatedMachine machine;
  machine.hosts = HostsOf({4, 4, 4, 4, 4, 4, 4, 4});
  const size_t n = 4 * 1000;
  for (const HostTraffic& host : Sent(Operation::kAllReduce, "nvrar", machine, n)) {
    EXPECT_EQ(host.messages, 4u * 3);
    EXPECT_EQ(host.elements, n * 3);
  }
  machine.hosts = HostsOf({3, 5});  // for two hosts, the fewest bytes
  for (const HostTraffic& host : Sent(Operation::kAllReduce, "nvrar", machine, n)) {
    EXPECT_EQ(host.elements, n);
  }
}

TEST(AlgorithmCosts, HierarchicalOperationsBringEveryByteToAHostOnce) {
  for (const std::vector<int>& ranks :
       std::vector<std::vector<int>>{{2, 2}, {4, 4, 4}, {1, 7}, {3, 1, 4}, {2, 8, 5, 1, 1}}) {
    SimulatedMachine machine;
    machine.hosts = HostsOf(ranks);
    const size_t n = 40000;
    for (const Operation operation :
         {Operation::kReduceScatter, Operation::kAllGather, Operation::kBroadcast}) {
      for (const char* name : {"hierarchical", "hierarchical_direct"}) {
        if (FindAlgorithm(operation, name) == nullptr) continue;
        const Simulation cost = Cost(operation, name, machine, n);
        EXPECT_EQ(cost.remote_bytes, (ranks.size() - 1) * n * 4) << Name(operation) << ", " << ranks.size();
      }
    }
  }
}

// Where ranks share a host's link, a rank has one message to another host under way at a time, and no link has two.
TEST(AlgorithmCosts, DirectExchangesAcrossHostsTakeTurns) {
  SimulatedMachine machine;
  machine.hosts = HostsOf({1, 1, 1, 1, 1});
  const auto sends = [&](Operation operation, const char* name) {
    std::vector<Collective> calls = CallsOn(operation, machine, 5000);
    for (Collective& call : calls) {
      call.recv_counts = call.counts;
      const Schedule schedule = FindAlgorithm(operation, name)->make(call);
      StepId before = kNoStep;
      int number = 0;
      for (size_t i = 0; i < schedule.steps.size(); ++i) {
        if (schedule.steps[i].kind != StepKind::kSend) continue;
        EXPECT_EQ(schedule.steps[i].peer, (call.rank + ++number) % call.size) << name;
        const auto after = schedule.After(static_cast<StepId>(i));
        EXPECT_EQ(before == kNoStep || std::find(after.begin(), after.end(), before) != after.end(), true)
            << name;
        before = static_cast<StepId>(i);
      }
      EXPECT_EQ(number, 4) << name;
    }
  };
  sends(Operation::kAllToAll, "pairwise");
  sends(Operation::kReduceScatter, "pairwise");
  sends(Operation::kReduceScatter, "hierarchical_direct");
  sends(Operation::kAllGather, "pairwise");
  sends(Operation::kAllGather, "hierarchical_direct");
}

TEST(AlgorithmCosts, FlatAlgorithmsTakeTheirRoundsAndBytes) {
  for (const int p : {2, 3, 5, 8, 16, 31, 64}) {
    SimulatedMachine latency;
    latency.hosts = HostMap::OneHost(p);
    latency.local = {1.0, 0.0};
    latency.local_seconds_per_byte = 0;
    const size_t n = 24 * p;
    const auto rounds = [&](Operation operation, const char* name) {
      return static_cast<int>(std::lround(Cost(operation, name, latency, n).seconds));
    };
    EXPECT_EQ(rounds(Operation::kAllReduce, "all_pair"), 1);
    EXPECT_EQ(rounds(Operation::kAllReduce, "direct"), p);  // reads one after the other, in a fixed order
    EXPECT_LE(rounds(Operation::kAllReduce, "halving_doubling"), 2 * Rounds(p));
    EXPECT_EQ(rounds(Operation::kReduceScatter, "recursive_halving"), Rounds(p));
    EXPECT_LE(rounds(Operation::kBroadcast, "scatter_all_gather"), 2 * Rounds(p));
    EXPECT_LE(rounds(Operation::kAllReduce, "double_tree"), 3 * (Rounds(p) + 1));
    const uint64_t bytes = n * 4;
    EXPECT_EQ(Cost(Operation::kAllReduce, "all_pair", latency, n).bytes, bytes * p * (p - 1));
    EXPECT_EQ(Cost(Operation::kAllReduce, "direct", latency, n).bytes, bytes * 2 * (p - 1));
    EXPECT_EQ(Cost(Operation::kAllReduce, "direct", latency, n).messages, 2u * p * (p - 1));
    EXPECT_EQ(Cost(Operation::kAllReduce, "halving_doubling", latency, n).bytes, bytes * 2 * (p - 1));
    EXPECT_EQ(Cost(Operation::kReduceScatter, "recursive_halving", latency, n).bytes, bytes * (p - 1));
    EXPECT_EQ(Cost(Operation::kAllGather, "pairwise", latency, n).bytes, bytes * (p - 1));
    EXPECT_EQ(Cost(Operation::kAllReduce, "double_tree", latency, n).bytes, bytes * 2 * (p - 1));
  }
}

TEST(AlgorithmCosts, TwoTreesCarryTwiceWhatOneDoes) {
  // In a steady pipeline a rank inside one binary tree receives twice what it sends, so one tree ends no
  // sooner than after 2n both ways at full rate; two end near n up and n down together.
  SimulatedMachine machine;
  machine.hosts = HostMap::OneHost(32);
  machine.local = {0.0, 1e-9};
  const size_t n = 1 << 20;
  const double bound = 2.0 * n * 4 * 1e-9;
  EXPECT_LT(Cost(Operation::kAllReduce, "double_tree", machine, n, n / 16).seconds, 2.5 * bound);
}

TEST(AlgorithmCosts, HoRingBeatsTheFlatRingWhereBothLevelsMatter) {
  SimulatedMachine machine;
  machine.hosts = HostsOf({8, 8, 8, 8});
  machine.local = {0.5e-6, 1.0 / 10e9};
  machine.remote = {10e-6, 1.0 / 2.5e9};
  const size_t n = 4 << 20, piece = n / 8 / 32;
  const double flat = Cost(Operation::kAllReduce, "ring", machine, n, piece).seconds;
  EXPECT_GE(flat / Cost(Operation::kAllReduce, "ho_ring", machine, n, n / 8).seconds, 1.30);
  // And where the ranks of a host share its link: the flat ring sends 2(p-1)/p n over it, this one n.
  machine.hosts = HostsOf({8, 8});
  machine.shared_link = true;
  machine.remote = {10e-6, 1.0 / 5e9};
  const double shared = Cost(Operation::kAllReduce, "ring", machine, n, n / 16 / 8).seconds;
  EXPECT_GE(shared / Cost(Operation::kAllReduce, "ho_ring", machine, n, n / 8).seconds, 1.30);
}

}  // namespace
}  // namespace cohort::comm
