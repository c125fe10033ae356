#include "parallel/sequence/attention_plan.h"

#include <gtest/gtest.h>

#include <functional>

#include "parallel/sequence/attention_time.h"
#include "parallel/sequence/head_parts.h"

namespace cohort::parallel {
namespace {

constexpr SplitKind kPlanKinds[] = {SplitKind::kContiguous, SplitKind::kZigzag, SplitKind::kStriped};
constexpr Moves kPlanMoves[] = {Moves::kKeysAndValues, Moves::kQueries};
constexpr Pass kPlanPasses[] = {Pass::kForward, Pass::kBackward};
const std::vector<int64_t> kPlanBatches[] = {{}, {1}, {2, 1}, {64}, {17, 0, 3, 1, 40, 5}};

AttentionPlan PlanOf(Pass pass, AttentionWay way, const TokenSplit& split) {
  return *MakeAttentionPlan(pass, way, split.ranks(), PairTable(split, way.head_parts));
}

TEST(AttentionPlan, EveryVisiblePairIsComputedOnceAndReachesItsOwner) {
  for (const SplitKind kind : kPlanKinds) {
    for (int ranks = 1; ranks <= 8; ++ranks) {
      for (const auto& lengths : kPlanBatches) {
        const auto split = TokenSplit::Create(kind, ranks, lengths);
        for (int parts = 1; parts <= ranks; ++parts) {
          if (ranks % parts != 0) continue;
          for (const Moves moves : kPlanMoves) {
            for (const Pass pass : kPlanPasses) {
              const auto status =
                  CheckAttentionPlan(PlanOf(pass, {moves, parts}, *split), PairTable(*split, parts));
              ASSERT_TRUE(status.ok()) << status << ", " << Name(kind) << ", " << parts << " of " << ranks;
            }
          }
        }
      }
    }
  }
}

TEST(AttentionPlan, NothingTravelsThatNobodyNeeds) {
  const auto split = TokenSplit::Create(SplitKind::kContiguous, 4, {64});
  // Block k is needed by those after it, whose queries see it, and block q by those before it.
  for (const auto& [moves, item] :
       {std::pair{Moves::kKeysAndValues, Item::kKeyValue}, {Moves::kQueries, Item::kQuery}}) {
    const AttentionPlan plan = PlanOf(Pass::kForward, {moves, 1}, *split);
    int sent = 0;
    for (const auto& steps : plan.steps) {
      for (const auto& step : steps) {
        for (const Transfer& send : step.sends) sent += send.item == item;
      }
    }
    EXPECT_EQ(sent, 3 + 2 + 1);
  }
  EXPECT_EQ(PlanOf(Pass::kForward, {}, *split).steps[0].size(), 1u);  // computes, sends its keys, is done
}

TEST(AttentionPlan, TheCheckerFindsWhatIsWrong) {
  const auto split = TokenSplit::Create(SplitKind::kStriped, 4, {64});
  const auto breaks = [&](Pass pass, AttentionWay way, const char* why,
                          const std::function<void(AttentionPlan&)>& hurt) {
    AttentionPlan plan = PlanOf(pass, way, *split);
    hurt(plan);
    const auto status = CheckAttentionPlan(plan, PairTable(*split, way.head_parts));
    EXPECT_NE(status.message().find(why), std::string::npos) << why << ", not " << status;
  };
  const AttentionWay ring, token_ring{Moves::kQueries, 1}, mixed{Moves::kKeysAndValues, 2};
  breaks(Pass::kForward, ring, "has not once", [](auto& plan) { plan.steps[1][2].compute.reset(); });
  breaks(Pass::kForward, ring, "that it has not", [](auto& plan) { plan.steps[1][1].compute->keys = 3; });
  breaks(Pass::kForward, ring, "twice", [](auto& plan) { plan.steps[1][1].compute = {1, 1}; });
  breaks(Pass::kForward, ring, "waits for ever", [](auto& plan) { plan.steps[1][0].sends.clear(); });
  breaks(Pass::kForward, ring, "does not receive", [](auto& plan) {
    plan.steps[1][0].sends.push_back({Item::kKeyValue, 1, -1, 3});
  });
  breaks(Pass::kForward, ring, "that it has not", [](auto& plan) { plan.steps[1][0].sends[0].block = 3; });
  breaks(Pass::kForward, token_ring, "keeps results", [](auto& plan) {
    plan.steps[2].back().sends.clear();
    plan.steps[3].back().receives.clear();
  });
  breaks(Pass::kBackward, ring, "waits for ever", [](auto& plan) { plan.steps[2].back().sends.clear(); });
  breaks(Pass::kBackward, mixed, "before it has its heads",
         [](auto& plan) { plan.steps[0].erase(plan.steps[0].begin()); });
  const auto contiguous = TokenSplit::Create(SplitKind::kContiguous, 2, {64});
  AttentionPlan plan = PlanOf(Pass::kForward, ring, *contiguous);
  plan.steps[0].push_back({{}, {}, Computation{0, 1}});
  EXPECT_NE(CheckAttentionPlan(plan, PairTable(*contiguous)).message().find("of which they see none"),
            std::string::npos);
  EXPECT_FALSE(MakeAttentionPlan(Pass::kForward, {Moves::kQueries, 3}, 4, PairTable(*split)).ok());
  EXPECT_FALSE(MakeAttentionPlan(Pass::kForward, {Moves::kQueries, 2}, 4, PairTable(*split)).ok());
}

TEST(HeadParts, KeyValueHeadsFollowTheirQueries) {
  const auto kv = [](int64_t heads, int64_t kv_heads, int parts) {
    std::vector<std::vector<int64_t>> result;
    const auto divided = DivideHeads(heads, kv_heads, parts);
    for (const HeadPart& part : *divided) result.push_back(part.kv);
    return result;
  };
  using Lists = std::vector<std::vector<int64_t>>;
  EXPECT_EQ(kv(8, 4, 2), (Lists{{0, 1}, {2, 3}}));
  EXPECT_EQ(kv(8, 2, 4), (Lists{{0}, {0}, {1}, {1}}));
  EXPECT_EQ(kv(6, 2, 3), (Lists{{0}, {0, 1}, {1}}));
  EXPECT_EQ(kv(12, 4, 3)[0],
            (std::vector<int64_t>{0, 0, 0, 1}));  // three of one and one of the next: no even groups
  EXPECT_EQ(kv(12, 4, 3)[1], (std::vector<int64_t>{1, 2}));
  EXPECT_NE(DivideHeads(8, 2, 3).status().message().find("must divide the 8 query heads"), std::string::npos);
}

AttentionTime TimeOf(Pass pass, AttentionWay way, const TokenSplit& split, const AttentionShape& shape,
                     const AttentionMachine& machine) {
  return *SimulateAttention(PlanOf(pass, way, split), split, shape, machine);
}

TEST(AttentionTime, BalanceBeatsContiguousByTheShareOfTheLastRank) {
  const AttentionMachine machine{Wiring::kSwitch, 0, 1e15, 1e12};
  for (const int ranks : {2, 4, 8}) {
    const auto seconds = [&](SplitKind kind) {
      return TimeOf(Pass::kForward, {}, *TokenSplit::Create(kind, ranks, {8192}), {8, 8, 64}, machine)
          .most_compute;
    };
    EXPECT_NEAR(seconds(SplitKind::kContiguous) / seconds(SplitKind::kZigzag), 2 - 1.0 / ranks, 0.01);
    EXPECT_NEAR(seconds(SplitKind::kContiguous) / seconds(SplitKind::kStriped), 2 - 1.0 / ranks, 0.01);
  }
}

TEST(AttentionTime, BytesAreCountedByHand) {
  const auto split = TokenSplit::Create(SplitKind::kStriped, 4, {4096});
  const AttentionShape shape{8, 2, 64, 2, 4};
  const AttentionMachine machine{Wiring::kSwitch, 0, 1e9, 1e12};
  const int64_t tokens = 1024;
  EXPECT_EQ(TimeOf(Pass::kForward, {}, *split, shape, machine).most_sent, 3 * tokens * 2 * 2 * 64 * 2);
  EXPECT_EQ(TimeOf(Pass::kBackward, {}, *split, shape, machine).most_sent, 3 * tokens * 2 * 2 * 64 * (2 + 4));
  EXPECT_EQ(TimeOf(Pass::kForward, {Moves::kQueries, 1}, *split, shape, machine).most_sent,
            3 * tokens * (8 * 64 * 2 + 8 * 64 * 2 + 8 * 4));
  // q, dy, lse and delta go out, dq comes back.
  EXPECT_EQ(TimeOf(Pass::kBackward, {Moves::kQueries, 1}, *split, shape, machine).most_sent,
            3 * tokens * (2 * 8 * 64 * 2 + 2 * 8 * 4 + 8 * 64 * 4));
  // Ulysses: 2 query heads and one key/value head, of which two parts have a copy; y comes back.
  EXPECT_EQ(TimeOf(Pass::kForward, {Moves::kKeysAndValues, 4}, *split, shape, machine).most_sent,
            3 * tokens * (2 + 2) * 64 * 2 + 3 * tokens * 2 * 64 * 2);
}

TEST(AttentionTime, TokenRingUsesBothWaysOfARing) {
  // As many key/value heads as heads, and a slow ring: half the bytes go each way.
  const auto split = TokenSplit::Create(SplitKind::kStriped, 4, {8192});
  const AttentionShape shape{8, 8, 64, 2, 4};
  const AttentionMachine machine{Wiring::kRing, 1e-6, 1e9, 1e15};
  EXPECT_LT(TimeOf(Pass::kForward, {Moves::kQueries, 1}, *split, shape, machine).seconds,
            0.9 * TimeOf(Pass::kForward, {}, *split, shape, machine).seconds);
}

TEST(AttentionTime, TokenRingMovesLessInBothPassesWhereHeadsAreNotGrouped) {
  const auto split = TokenSplit::Create(SplitKind::kZigzag, 4, {8192});
  for (const int64_t element_bytes : {2, 4}) {
    const AttentionShape shape{8, 8, 64, element_bytes, 4};
    const AttentionMachine machine{Wiring::kSwitch, 1e-6, 1e9, 1e15};
    const auto both = [&](Moves moves) {
      return TimeOf(Pass::kForward, {moves, 1}, *split, shape, machine).seconds +
             TimeOf(Pass::kBackward, {moves, 1}, *split, shape, machine).seconds;
    };
    EXPECT_LT(both(Moves::kQueries), 0.9 * both(Moves::kKeysAndValues)) << element_bytes;
  }
}

TEST(AttentionTime, BytesTakeTheTimeOfWhoeverCopiesThem) {
  const auto split = TokenSplit::Create(SplitKind::kZigzag, 2, {4096});
  const AttentionShape shape{8, 8, 64, 4, 4};
  AttentionMachine machine{Wiring::kSwitch, 0, 1e18, 1e9};
  const double without = TimeOf(Pass::kForward, {}, *split, shape, machine).seconds;
  machine.host_seconds_per_byte = 1e-9;
  const double bytes = 2.0 * 2048 * 2 * 8 * 64 * 4;  // own keys and values out, the other's in
  EXPECT_NEAR(TimeOf(Pass::kForward, {}, *split, shape, machine).seconds, without + bytes * 1e-9,
              1e-6 * without);
}

TEST(AttentionChoice, MovesWhatIsSmall) {
  const auto split = TokenSplit::Create(SplitKind::kZigzag, 4, {8192});
  const AttentionMachine machine{Wiring::kRing, 1e-6, 1e9, 1e15};
  // Multi-query attention: keys and values are tiny, and Ulysses has to copy them.
  const auto multi_query = ChooseAttention(*split, {32, 1, 64}, machine);
  ASSERT_TRUE(multi_query.ok());
  EXPECT_EQ(multi_query->best.forward, AttentionWay{}) << multi_query->reason;
  EXPECT_EQ(multi_query->options.size(), 3u);
  // One head a rank cannot be had of three heads.
  const auto three = ChooseAttention(*split, {3, 3, 64}, machine);
  ASSERT_TRUE(three.ok());
  EXPECT_EQ(three->options.size(), 1u);
  EXPECT_EQ(three->best.forward.moves, Moves::kQueries) << three->reason;
  // A switch: all-to-all moves least of all where heads are many.
  const auto switched = ChooseAttention(*split, {32, 32, 64}, {Wiring::kSwitch, 1e-6, 1e9, 1e15});
  ASSERT_TRUE(switched.ok());
  EXPECT_EQ(switched->best.forward.head_parts, 4) << switched->reason;
}

}  // namespace
}  // namespace cohort::parallel
