// Token forwarding proved without a cluster: with random routings, every row arrives exactly where it must, and crosses
// to each host once.
#include "comm/tokens/routes.h"

#include <gtest/gtest.h>

#include <random>
#include <set>

#include "comm/simulator.h"

namespace cohort::comm {
namespace {

constexpr size_t kWidth = 3;

std::shared_ptr<const HostMap> HostsOf(const std::vector<int>& ranks) {  // ranks of each host
  std::vector<int> host_of;
  for (size_t host = 0; host < ranks.size(); ++host) host_of.insert(host_of.end(), ranks[host], host);
  return std::make_shared<const HostMap>(host_of);
}

// By rank, the destinations of its tokens: up to `most` of them, up to `k` for each; some have none, and some ranks
// have no tokens.
std::vector<RankLists> RandomRouting(int size, int most, int k, uint32_t seed) {
  std::mt19937 random(seed);
  const auto below = [&](int n) { return static_cast<int>(random() % static_cast<uint32_t>(n)); };
  std::vector<RankLists> all(size);
  for (int rank = 0; rank < size; ++rank) {
    const int tokens = rank % 5 == 3 ? 0 : below(most + 1);
    for (int t = 0; t < tokens; ++t) {
      std::set<int32_t> ranks;
      for (int j = below(k + 1); j > 0; --j) ranks.insert(below(size));
      all[rank].Add(std::vector<int32_t>(ranks.begin(), ranks.end()));
    }
  }
  return all;
}

// What each rank knows of the routing.
std::vector<std::shared_ptr<const TokenRoutes>> RoutesOf(const std::shared_ptr<const HostMap>& hosts,
                                                         const std::vector<RankLists>& all) {
  std::vector<std::shared_ptr<TokenRoutes>> routes;
  const int size = hosts->size();
  for (int rank = 0; rank < size; ++rank) {
    routes.push_back(std::make_shared<TokenRoutes>());
    *routes.back() = {rank, hosts, all[rank], std::vector<RankLists>(size), std::vector<size_t>(size, 0)};
  }
  for (int source = 0; source < size; ++source) {
    for (size_t t = 0; t < all[source].size(); ++t) {
      for (const int32_t rank : all[source][t]) ++routes[rank]->received[source];
    }
    for (int host = 0; host < hosts->num_hosts(); ++host) {
      if (host == hosts->host_of(source)) continue;
      routes[Forwarder(*hosts, source, host)]->passing[source] = ListsOn(all[source], *hosts, host);
    }
  }
  return {routes.begin(), routes.end()};
}

// Rows that must cross: one for each token and other host it goes to.
size_t Crossings(const HostMap& hosts, const std::vector<RankLists>& all) {
  size_t rows = 0;
  for (int source = 0; source < hosts.size(); ++source) {
    for (size_t t = 0; t < all[source].size(); ++t) {
      std::set<int> there;
      for (const int32_t rank : all[source][t]) there.insert(hosts.host_of(rank));
      there.erase(hosts.host_of(source));
      rows += there.size();
    }
  }
  return rows;
}

absl::StatusOr<Simulation> Proved(Operation operation,
                                  const std::vector<std::shared_ptr<const TokenRoutes>>& routes,
                                  std::vector<Schedule>* schedules) {
  const int size = static_cast<int>(routes.size());
  std::vector<Collective> calls(size);
  for (int rank = 0; rank < size; ++rank) {
    calls[rank].operation = operation;
    calls[rank].rank = rank;
    calls[rank].size = size;
    calls[rank].count = kWidth;
    calls[rank].hosts = routes[rank]->hosts;
    calls[rank].tokens = routes[rank];
    if (schedules->size() == static_cast<size_t>(size)) continue;
    schedules->push_back(operation == Operation::kTokenDispatch ? DispatchTokens(*routes[rank], kWidth)
                                                                : CombineTokens(*routes[rank], kWidth));
  }
  SimulatedMachine machine;
  machine.hosts = routes[0]->hosts;
  return Simulate(calls, *schedules, 4, machine);
}

TEST(TokenRoutes, EveryRowArrivesOnceAndCrossesOnceToAHost) {
  uint32_t seed = 1;
  for (const std::vector<int>& ranks : std::vector<std::vector<int>>{{1},
                                                                     {4},
                                                                     {1, 1},
                                                                     {4, 4},
                                                                     {1, 7},
                                                                     {7, 1},
                                                                     {3, 1, 4},
                                                                     {2, 8, 5, 1, 1},
                                                                     {8, 8, 8, 8},
                                                                     {1, 1, 1, 1, 1}}) {
    const auto hosts = HostsOf(ranks);
    for (const auto& [tokens, k] :
         std::vector<std::pair<int, int>>{{0, 1}, {1, 1}, {9, 2}, {40, 8}, {12, 30}}) {
      const auto all = RandomRouting(hosts->size(), tokens, k, seed++);
      const auto routes = RoutesOf(hosts, all);
      size_t announced = 0;
      for (const auto& route : routes) announced += route->num_crossing();
      EXPECT_EQ(announced, Crossings(*hosts, all));
      for (const Operation operation : {Operation::kTokenDispatch, Operation::kTokenCombine}) {
        std::vector<Schedule> schedules;
        const auto proof = Proved(operation, routes, &schedules);
        ASSERT_TRUE(proof.ok()) << Name(operation) << " on " << hosts->size() << " ranks: " << proof.status();
        EXPECT_EQ(proof->remote_bytes, Crossings(*hosts, all) * kWidth * 4) << Name(operation);
      }
    }
  }
}

TEST(TokenRoutes, OnAThousandRanksOfUnevenHosts) {
  std::vector<int> ranks;
  for (int left = 1024; left > 0; left -= ranks.back()) {
    ranks.push_back(std::min<int>(left, 1 + static_cast<int>(ranks.size() * 5 % 16)));
  }
  const auto hosts = HostsOf(ranks);
  ASSERT_EQ(hosts->size(), 1024);
  const auto all = RandomRouting(1024, 6, 8, 7);
  const auto routes = RoutesOf(hosts, all);
  for (const Operation operation : {Operation::kTokenDispatch, Operation::kTokenCombine}) {
    std::vector<Schedule> schedules;
    const auto proof = Proved(operation, routes, &schedules);
    ASSERT_TRUE(proof.ok()) << proof.status();
    EXPECT_EQ(proof->remote_bytes, Crossings(*hosts, all) * kWidth * 4);
  }
}

TEST(TokenRoutes, RowsInAnyOrderOfRanksOnHosts) {
  const auto hosts = std::make_shared<const HostMap>(std::vector<int>{0, 1, 0, 2, 1, 0, 2, 2, 1, 1});
  const auto all = RandomRouting(hosts->size(), 20, 6, 3);
  for (const Operation operation : {Operation::kTokenDispatch, Operation::kTokenCombine}) {
    std::vector<Schedule> schedules;
    const auto proof = Proved(operation, RoutesOf(hosts, all), &schedules);
    ASSERT_TRUE(proof.ok()) << proof.status();
    EXPECT_EQ(proof->remote_bytes, Crossings(*hosts, all) * kWidth * 4);
  }
}

// The proof sees what is wrong: a row that goes to the wrong place, a summand that is missing.
TEST(TokenRoutes, TheSimulatorFindsBrokenSchedules) {
  const auto hosts = HostsOf({2, 2});
  const auto routes = RoutesOf(hosts, RandomRouting(4, 12, 3, 11));
  for (const Operation operation : {Operation::kTokenDispatch, Operation::kTokenCombine}) {
    std::vector<Schedule> schedules;
    ASSERT_TRUE(Proved(operation, routes, &schedules).ok());
    const StepKind kind = operation == Operation::kTokenDispatch ? StepKind::kCopy : StepKind::kReduce;
    int broken = 0;
    for (Schedule& schedule : schedules) {
      for (Step& step : schedule.steps) {
        if (step.kind != kind || step.source.buffer != Buffer::kInput || step.source.offset < kWidth)
          continue;
        step.source.offset -= kWidth;
        EXPECT_FALSE(Proved(operation, routes, &schedules).ok());
        step.source.offset += kWidth;
        ++broken;
      }
    }
    EXPECT_GT(broken, operation == Operation::kTokenDispatch ? 5 : 0);
  }
}

}  // namespace
}  // namespace cohort::comm
