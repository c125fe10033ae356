#include "parallel/sequence/hybrid_batches.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

namespace cohort::parallel {
namespace {

// Log-normal lengths: a median of `median` tokens and a tail as long as `longest`.
std::vector<int64_t> MixedLengths(int count, double median, int64_t longest, uint32_t seed = 7) {
  std::mt19937 random(seed);
  std::lognormal_distribution<double> lognormal(std::log(median), 1.6);
  std::vector<int64_t> lengths;
  for (int i = 0; i < count; ++i) {
    lengths.push_back(std::clamp<int64_t>(static_cast<int64_t>(lognormal(random)), 1, longest));
  }
  return lengths;
}

// Attention costs as much as everything else at 8,192 tokens; moving a token costs a tenth of computing it.
constexpr HybridCosts kHybridCosts = {1, 1.0 / 4096, 0.1, 0};

TEST(HybridBatches, PlansHold) {
  for (const int ranks : {1, 2, 3, 4, 8, 31}) {
    for (const auto& lengths :
         {std::vector<int64_t>{}, std::vector<int64_t>{0, 0}, std::vector<int64_t>{1},
          std::vector<int64_t>{900, 1, 1024, 0, 3, 1000, 512, 512}, MixedLengths(200, 300, 1024 * ranks)}) {
      const auto plan = PlanHybridBatches(lengths, ranks, 1024, kHybridCosts);
      ASSERT_TRUE(plan.ok()) << plan.status();
      const auto status = CheckHybridPlan(*plan, lengths);
      ASSERT_TRUE(status.ok()) << status << ", " << ranks << " ranks";
      for (const HybridMicroBatch& batch : plan->micro_batches) {
        ASSERT_TRUE(batch.ranks == 1 || batch.sequences.size() == 1);
      }
      const auto context = StaticContext(lengths, ranks, 1024);
      ASSERT_TRUE(context.ok());
      const auto fixed = PlanStaticBatches(lengths, ranks, *context, 1024);
      ASSERT_TRUE(fixed.ok()) << fixed.status();
      ASSERT_TRUE(CheckHybridPlan(*fixed, lengths).ok());
    }
  }
}

TEST(HybridBatches, LongSequencesTakeTheRanksTheyNeedAndShortOnesCommunicateNothing) {
  std::vector<int64_t> lengths(64, 128);
  lengths.push_back(4 * 1024);
  const auto plan = PlanHybridBatches(lengths, 8, 1024, {1, 0, 0.1, 0});
  ASSERT_TRUE(plan.ok());
  int groups = 0;
  for (const HybridMicroBatch& batch : plan->micro_batches) {
    if (batch.ranks == 1) continue;
    ++groups;
    EXPECT_EQ(batch.ranks, 4);
    EXPECT_EQ(batch.sequences, std::vector<int64_t>{64});
  }
  EXPECT_EQ(groups, 1);
  const HybridTime time = SimulateHybrid(*plan, lengths, {1, 0, 0.1, 0});
  EXPECT_EQ(time.moved, 4 * 1024);
  EXPECT_GT(time.busy, 0.85 * time.seconds);
  // Where pairs count, the same sequence takes more ranks than its tokens need.
  const auto quadratic = PlanHybridBatches(lengths, 8, 1024, {1, 1.0 / 256, 0, 0});
  ASSERT_TRUE(quadratic.ok());
  EXPECT_EQ(std::max_element(quadratic->micro_batches.begin(), quadratic->micro_batches.end(),
                             [](const auto& a, const auto& b) { return a.ranks < b.ranks; })
                ->ranks,
            8);
}

TEST(HybridBatches, BalanceIsCloseToPerfectAndTwiceAStaticMesh) {
  for (const uint32_t seed : {1u, 2u, 3u, 4u, 5u}) {
    const int ranks = 16;
    const int64_t budget = 8192;
    std::vector<int64_t> lengths = MixedLengths(600, 1500, budget * ranks, seed);
    lengths.push_back(budget * ranks / 2);  // the tail is there in any case
    const auto hybrid = PlanHybridBatches(lengths, ranks, budget, kHybridCosts);
    ASSERT_TRUE(hybrid.ok());
    const auto context = StaticContext(lengths, ranks, budget);
    const auto fixed = PlanStaticBatches(lengths, ranks, *context, budget);
    ASSERT_TRUE(fixed.ok());
    const HybridTime ours = SimulateHybrid(*hybrid, lengths, kHybridCosts),
                     theirs = SimulateHybrid(*fixed, lengths, kHybridCosts);
    EXPECT_GT(ours.busy, 0.95 * ours.seconds) << seed;
    EXPECT_LT(ours.seconds, 1.001 * theirs.seconds) << seed;
    // Where moving dominates, as between hosts at 1 Gbit/s.
    const HybridCosts slow = {1, 1.0 / 4096, 2, 0};
    const auto again = PlanHybridBatches(lengths, ranks, budget, slow);
    EXPECT_GT(SimulateHybrid(*fixed, lengths, slow).seconds,
              2 * SimulateHybrid(*again, lengths, slow).seconds)
        << seed;
  }
}

TEST(HybridBatches, GroupsStayOnAHostWhereLinksBetweenHostsCost) {
  // Two sequences that need two ranks each, on hosts of two: neither crosses. One crosses where hosts are odd.
  HybridCosts costs = {1, 0, 50, 0, 0.1, 2};
  const std::vector<int64_t> lengths = {2000, 2000, 100, 900};
  const auto plan = PlanHybridBatches(lengths, 4, 1024, costs);
  ASSERT_TRUE(plan.ok());
  for (const HybridMicroBatch& batch : plan->micro_batches) {
    if (batch.ranks > 1) {
      EXPECT_EQ(batch.first_rank % 2, 0);
    }
  }
  EXPECT_LT(GroupSeconds(costs, lengths, 2, 2), GroupSeconds(costs, lengths, 1, 2));
  costs.host_ranks = 1;
  EXPECT_EQ(GroupSeconds(costs, lengths, 2, 2), GroupSeconds(costs, lengths, 1, 2));
}

TEST(HybridBatches, RoundsKeepRanksInStep) {
  for (const int ranks : {1, 2, 3, 8}) {
    const auto lengths = MixedLengths(100, 300, 1024 * ranks);
    const auto plan = PlanHybridBatches(lengths, ranks, 1024, kHybridCosts);
    ASSERT_TRUE(plan.ok());
    const auto rounds = RoundsOf(*plan);
    std::vector<int> times(plan->micro_batches.size(), 0);
    for (int rank = 0; rank < ranks; ++rank) {
      ASSERT_EQ(rounds[rank].size(), rounds[0].size());
      std::vector<int> order;
      for (size_t round = 0; round < rounds[rank].size(); ++round) {
        const int index = rounds[rank][round];
        if (index < 0) continue;
        order.push_back(index);
        ++times[index];
        const HybridMicroBatch& batch = plan->micro_batches[index];
        for (int r = batch.first_rank; r < batch.first_rank + batch.ranks; ++r) {
          ASSERT_EQ(rounds[r][round], index);
        }
      }
      EXPECT_EQ(order, plan->Of(rank));
    }
    for (size_t i = 0; i < times.size(); ++i) EXPECT_EQ(times[i], plan->micro_batches[i].ranks);
  }
}

TEST(HybridBatches, TheLossIsTheMeanOverAllTokensOfTheStep) {
  const std::vector<int64_t> lengths = {3000, 5, 700, 1, 0, 1200, 90};
  std::mt19937 random(3);
  std::vector<std::vector<double>> losses;  // of each token; negative: not predicted
  std::vector<int64_t> predicted;
  double sum = 0, count = 0;
  for (const int64_t length : lengths) {
    losses.emplace_back();
    predicted.push_back(0);
    for (int64_t t = 0; t < length; ++t) {
      const bool counts = random() % 3 != 0;
      losses.back().push_back(counts ? static_cast<double>(random() % 1000) : -1);
      if (counts) ++predicted.back(), ++count, sum += losses.back().back();
    }
  }
  const runtime::LossScale scale = LossScaleOf(predicted);
  EXPECT_EQ(scale.tokens, count);
  EXPECT_EQ(scale.sequences, 7);
  const auto plan = PlanHybridBatches(lengths, 4, 1024, kHybridCosts);
  ASSERT_TRUE(plan.ok());
  for (const SplitKind kind : {SplitKind::kContiguous, SplitKind::kZigzag, SplitKind::kStriped}) {
    double loss = 0;
    for (int rank = 0; rank < 4; ++rank) {
      for (const int index : plan->Of(rank)) {
        const HybridMicroBatch& batch = plan->micro_batches[index];
        const auto split = plan->Split(index, kind, lengths);
        double own = 0;
        const auto offsets = split->Offsets(rank - batch.first_rank),
                   at = split->Positions(rank - batch.first_rank);
        for (size_t s = 0; s < batch.sequences.size(); ++s) {
          for (int32_t t = offsets[s]; t < offsets[s + 1]; ++t)
            own += std::max(0.0, losses[batch.sequences[s]][at[t]]);
        }
        loss += own / scale.tokens;
      }
    }
    EXPECT_NEAR(loss, sum / count, 1e-9 * loss);
  }
}

TEST(HybridBatches, WhatIsWrongIsNamed) {
  EXPECT_EQ(PlanHybridBatches({10, 5000}, 4, 1024, kHybridCosts).status().message(),
            "sequence 1 of 5000 tokens needs 5 ranks of 1024 tokens, and there are 4");
  EXPECT_FALSE(PlanHybridBatches({-1}, 4, 1024, kHybridCosts).ok());
  EXPECT_FALSE(PlanHybridBatches({1}, 0, 1024, kHybridCosts).ok());
  EXPECT_FALSE(PlanStaticBatches({1}, 4, 3, 1024).ok());
  EXPECT_FALSE(PlanStaticBatches({1500}, 4, 1, 1024).ok());
  const std::vector<int64_t> lengths = {1500, 100};
  const auto broken = [&](const HybridPlan& plan) {
    return std::string(CheckHybridPlan(plan, lengths).message());
  };
  EXPECT_NE(broken({2, 1024, {{0, 2, {0}}}}).find("sequence 1 is computed 0 times"), std::string::npos);
  EXPECT_NE(broken({2, 1024, {{0, 1, {0}}, {1, 1, {1}}}}).find("budget is 1024"), std::string::npos);
  EXPECT_NE(broken({2, 1024, {{1, 2, {0}}, {1, 1, {1}}}}).find("of ranks 1 to 2 of 2"), std::string::npos);
  EXPECT_NE(broken({2, 1024, {{0, 2, {0, 2}}}}).find("sequence 2 of 2"), std::string::npos);
}

}  // namespace
}  // namespace cohort::parallel
