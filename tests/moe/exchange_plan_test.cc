// Exchange plans of all ranks together: every row reaches the expert it was sent to once, and
// comes back to its place.
#include "moe/dispatch/exchange_plan.h"

#include <gtest/gtest.h>

#include <numeric>
#include <random>

namespace cohort::moe {
namespace {

struct Row {
  int from;
  int32_t place;  // among the sender's sorted rows
  int expert;
  bool operator==(const Row&) const = default;
};

// counts[r][e]: rows of rank r for expert e.
void Prove(const std::vector<std::vector<int32_t>>& counts) {
  const int ranks = static_cast<int>(counts.size());
  const int experts = static_cast<int>(counts[0].size()), local = experts / ranks;
  std::vector<ExchangePlan> plans;
  std::vector<std::vector<Row>> sorted(ranks);
  for (int r = 0; r < ranks; ++r) {
    std::vector<int32_t> offsets = {0}, arriving;
    for (int e = 0; e < experts; ++e) {
      for (int32_t i = 0; i < counts[r][e]; ++i) sorted[r].push_back({r, offsets[e] + i, e});
      offsets.push_back(offsets[e] + counts[r][e]);
    }
    for (int from = 0; from < ranks; ++from) {
      for (int e = 0; e < local; ++e) arriving.push_back(counts[from][r * local + e]);
    }
    plans.push_back(MakeExchangePlan(offsets, arriving, ranks));
  }
  // What all_to_all_v does: each rank's packed sends, cut by the counts, in order of the sender.
  std::vector<std::vector<Row>> back(ranks);
  std::vector<std::vector<Row>> arrived(ranks);
  for (int from = 0; from < ranks; ++from) {
    auto next = sorted[from].begin();
    for (int to = 0; to < ranks; ++to) {
      ASSERT_EQ(plans[from].send_rows[to], plans[to].receive_rows[from]);
      arrived[to].insert(arrived[to].end(), next, next + plans[from].send_rows[to]);
      next += plans[from].send_rows[to];
    }
    ASSERT_EQ(next, sorted[from].end());
  }
  std::vector<std::vector<Row>> returned(ranks);
  for (int r = 0; r < ranks; ++r) {
    const ExchangePlan& plan = plans[r];
    ASSERT_EQ(plan.arrived(), static_cast<int64_t>(arrived[r].size()));
    ASSERT_EQ(plan.offsets.back(), plan.arrived());
    std::vector<Row> by_expert, by_rank(arrived[r].size());
    for (const int32_t place : plan.by_expert) by_expert.push_back(arrived[r][place]);
    for (int e = 0; e < local; ++e) {
      for (int32_t i = plan.offsets[e]; i < plan.offsets[e + 1]; ++i) {
        ASSERT_EQ(by_expert[i].expert, r * local + e);
        // Within an expert by rank, and within a rank as it was sent: the order does not depend on timing.
        if (i > plan.offsets[e]) {
          ASSERT_LT(std::make_pair(by_expert[i - 1].from, by_expert[i - 1].place),
                    std::make_pair(by_expert[i].from, by_expert[i].place));
        }
      }
    }
    for (size_t i = 0; i < by_rank.size(); ++i) by_rank[i] = by_expert[plan.by_rank[i]];
    ASSERT_EQ(by_rank, arrived[r]);
  }
}

TEST(ExchangePlan, EveryRowArrivesOnceAtItsExpert) {
  std::mt19937 random(1);
  for (const int ranks : {1, 2, 3, 4, 7}) {
    for (const int local : {1, 2, 5}) {
      std::vector<std::vector<int32_t>> counts(ranks, std::vector<int32_t>(ranks * local));
      for (auto& row : counts) {
        for (int32_t& count : row) count = random() % 3 == 0 ? 0 : static_cast<int32_t>(random() % 6);
      }
      Prove(counts);
    }
  }
}

TEST(ExchangePlan, RanksWithoutTokensAndExpertsWithNoneOrAll) {
  Prove({{0, 0, 0, 0}, {0, 0, 0, 0}});  // nobody has anything
  Prove({{0, 0, 0, 0}, {3, 0, 1, 2}});  // one rank has nothing
  Prove({{0, 5, 0, 0}, {0, 7, 0, 0}});  // one expert gets all
  Prove({{4, 0, 0, 4}, {1, 0, 0, 1}});  // the experts in the middle get none
}

}  // namespace
}  // namespace cohort::moe
