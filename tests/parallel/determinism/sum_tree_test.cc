// The order of sums: whoever holds which leaves, the plan adds up one and the same tree.
#include "parallel/determinism/sum_tree.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "parallel/determinism/leaf_order.h"
#include "parallel/determinism/virtual_shards.h"

namespace cohort::parallel {
namespace {

// Rank r computes part r % parts of a run of shards.
std::vector<std::vector<TreeNode>> LeavesOn(const SumTree& tree, int ranks) {
  const VirtualShards cut = VirtualShards::Of(tree.shards(), tree.shards(), 0);
  std::vector<std::vector<TreeNode>> leaves;
  for (int rank = 0; rank < ranks * tree.parts(); ++rank) {
    const IndexRange run = cut.ShardsOf(rank / tree.parts(), ranks);
    leaves.emplace_back();
    for (int64_t shard = run.begin; shard < run.end; ++shard) {
      leaves.back().push_back(tree.Leaf(rank % tree.parts(), static_cast<int>(shard)));
    }
  }
  return leaves;
}

TEST(SumTree, EveryPlanSumsTheSameTree) {
  for (const int shards : {1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 16, 31, 32, 64, 100}) {
    for (const int parts : {1, 2, 3, 4}) {
      const SumTree tree(shards, parts);
      for (int ranks = 1; ranks <= 64; ++ranks) {
        const auto leaves = LeavesOn(tree, ranks);
        const absl::Status status = CheckSumPlan(MakeSumPlan(tree, leaves), leaves);
        ASSERT_TRUE(status.ok()) << shards << " shards, " << parts << " parts, " << ranks
                                 << " ranks: " << status;
      }
    }
  }
}

TEST(SumTree, RanksThatDivideTheShardsEachSendOneNode) {
  const SumTree tree(8, 1);
  for (const int ranks : {1, 2, 4, 8}) {
    for (const auto& held : MakeSumPlan(tree, LeavesOn(tree, ranks)).held)
      EXPECT_EQ(held.size(), 1u) << ranks;
  }
  const SumPlan three = MakeSumPlan(tree, LeavesOn(tree, 3));  // shards 0 1 | 2 3 4 | 5 6 7
  EXPECT_EQ(three.held[0], (std::vector<TreeNode>{{1, 0}}));
  EXPECT_EQ(three.held[1], (std::vector<TreeNode>{{1, 1}, {0, 4}}));
  EXPECT_EQ(three.held[2], (std::vector<TreeNode>{{0, 5}, {1, 3}}));
}

TEST(SumTree, TheCheckerNoticesWrongPlans) {
  const SumTree tree(8, 1);
  const auto leaves = LeavesOn(tree, 3);
  const SumPlan good = MakeSumPlan(tree, leaves);
  ASSERT_TRUE(CheckSumPlan(good, leaves).ok());
  SumPlan bad = good;
  std::swap(bad.additions[0], bad.additions[1]);
  bad.additions.pop_back();
  EXPECT_FALSE(CheckSumPlan(bad, leaves).ok());
  bad = good;
  bad.additions.back().from = bad.additions.front().from;  // twice
  EXPECT_FALSE(CheckSumPlan(bad, leaves).ok());
  bad = good;
  bad.held[1].pop_back();
  EXPECT_FALSE(CheckSumPlan(bad, leaves).ok());
  bad = good;
  bad.result = 1;
  EXPECT_FALSE(CheckSumPlan(bad, leaves).ok());
}

TEST(SumTree, NumbersAreAddedInItsOrder) {
  const SumTree tree(5, 1);
  const double big = 1e16;
  // ((big + 1) + (1 + 1)) + 1 is not what adding from left to right gives.
  EXPECT_EQ(SumInOrder(tree, {big, 1, 1, 1, 1}), ((big + 1) + (1.0 + 1)) + 1);
  EXPECT_NE(SumInOrder(tree, {big, 1, 1, 1, 1}), big + 1 + 1 + 1 + 1);
}

TEST(VirtualShards, EverySampleIsComputedOnceInTheSameMicroBatches) {
  for (const int64_t samples : {1, 3, 7, 8, 13, 64}) {
    for (const int64_t micro_batch : {0, 1, 2, 3}) {
      const VirtualShards cut = VirtualShards::Of(samples, 0, micro_batch);
      std::vector<std::vector<IndexRange>> one;  // micro-batches by shard, on one rank
      for (const int ranks : {1, 2, 3, 4, 8, 11}) {
        std::vector<std::vector<IndexRange>> of_shard(cut.shards);
        for (int rank = 0; rank < ranks; ++rank) {
          for (int64_t round = 0; round < cut.RoundsOn(ranks); ++round) {
            const int shard = cut.ShardIn(round, rank, ranks);
            if (shard >= 0) {
              of_shard[shard].push_back(cut.SamplesIn(round, rank, ranks));
            } else {
              EXPECT_EQ(cut.SamplesIn(round, rank, ranks).size(), 0);
            }
          }
        }
        if (ranks == 1) {
          one = of_shard;
          int64_t next = 0;
          for (const auto& shard : of_shard) {
            for (const IndexRange& range : shard) {
              EXPECT_EQ(range.begin, next);
              next = range.end;
            }
          }
          EXPECT_EQ(next, samples);
        }
        EXPECT_EQ(of_shard, one) << samples << " samples, " << ranks << " ranks";
      }
    }
  }
}

TEST(LeafOrder, EveryMeshHasItsPlans) {
  const VirtualShards cut = VirtualShards::Of(13, 0, 1);
  for (const MeshShape& shape :
       {MeshShape{}, MeshShape{.shard = 2}, MeshShape{.context = 2, .tensor = 2}, MeshShape{.expert = 3},
        MeshShape{.pipeline = 2, .tensor = 3, .expert = 6}, MeshShape{.expert = 12},
        MeshShape{.pipeline = 3, .shard = 2, .expert = 2}}) {
    const Mesh mesh = *Mesh::Create(shape, std::vector<int>(12, 0));
    for (int rank = 0; rank < 12; ++rank) {
      for (const auto placement :
           {runtime::Placement::kReplicated, runtime::Placement::kTensor, runtime::Placement::kExpert}) {
        const LeafOrder order = OrderOf(placement, mesh, cut, rank);
        const absl::Status status = CheckSumPlan(order.plan, order.leaves);
        EXPECT_TRUE(status.ok()) << shape.DebugString() << ": " << status;
      }
    }
  }
}

}  // namespace
}  // namespace cohort::parallel
