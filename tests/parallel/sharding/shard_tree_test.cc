// Shards nest, and every element has exactly one owner at every level: all chains of levels of up to 16 ranks.
#include "parallel/sharding/shard_tree.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <map>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace cohort::parallel {
namespace {

using ::testing::ElementsAre;

// Calls `visit` with every chain 1 | .. | replicas.
void EveryChain(int replicas, std::vector<int> chain,
                const std::function<void(const std::vector<int>&)>& visit) {
  visit(chain);
  for (int next = chain.back() + 1; next < replicas; ++next) {
    if (next % chain.back() != 0 || replicas % next != 0) continue;
    std::vector<int> longer = chain;
    longer.push_back(next);
    EveryChain(replicas, longer, visit);
  }
}

TEST(ShardTree, AnExample) {
  const ShardTree tree({2}, 4);
  EXPECT_THAT(tree.levels(), ElementsAre(1, 2, 4));
  std::vector<int> half, quarter;
  for (int rank = 0; rank < 4; ++rank) {
    half.push_back(tree.Piece(2, rank));
    quarter.push_back(tree.Piece(4, rank));
  }
  EXPECT_THAT(half, ElementsAre(0, 1, 0, 1));
  EXPECT_THAT(quarter, ElementsAre(0, 2, 1, 3));
  EXPECT_EQ(tree.RangeOf(2, 1, 10), (ElementRange{5, 10}));
  EXPECT_EQ(tree.RangeOf(4, 1, 10), (ElementRange{5, 7}));
  EXPECT_EQ(tree.RangeOf(4, 3, 10), (ElementRange{7, 10}));
  EXPECT_THAT(tree.Parts(2, 4, 1, 10), ElementsAre(2, 3));
}

TEST(ShardTree, EveryElementIsOwnedOnceAtEveryLevelAndPiecesNest) {
  int chains = 0;
  for (int replicas = 1; replicas <= 16; ++replicas) {
    EveryChain(replicas, {1}, [&](const std::vector<int>& levels) {
      ++chains;
      const ShardTree tree(levels, replicas);
      for (const int64_t elements : {0, 1, 5, 16, 37, 1000}) {
        for (size_t l = 0; l < tree.levels().size(); ++l) {
          const int level = tree.levels()[l];
          // Each aligned run of `level` neighbours holds everything once.
          for (int first = 0; first < replicas; first += level) {
            std::vector<int> owners(elements, 0);
            for (int rank = first; rank < first + level; ++rank) {
              const ElementRange range = tree.RangeOf(level, rank, elements);
              for (int64_t i = range.begin; i < range.end; ++i) ++owners[i];
              EXPECT_LE(range.size() * level, elements + level) << "not nearly equal";
              if (l == 0) continue;
              const ElementRange coarser = tree.RangeOf(tree.levels()[l - 1], rank, elements);
              EXPECT_LE(coarser.begin, range.begin);
              EXPECT_GE(coarser.end, range.end);
            }
            for (const int count : owners)
              ASSERT_EQ(count, 1) << absl::StrJoin(levels, "|") << " of " << replicas;
          }
        }
      }
    });
  }
  EXPECT_GT(chains, 40);
}

TEST(ShardTree, MovesMeetThoseWhoHoldPartsOfTheSamePiece) {
  for (int replicas = 1; replicas <= 16; ++replicas) {
    EveryChain(replicas, {1}, [&](const std::vector<int>& levels) {
      const ShardTree tree(levels, replicas);
      const int64_t elements = 101;
      for (const int coarse : tree.levels()) {
        for (const int fine : tree.levels()) {
          if (fine < coarse) continue;
          std::map<int, std::map<int, int>> groups;  // color, key: rank
          for (int rank = 0; rank < replicas; ++rank) {
            const ShardTree::Place place = tree.PlaceIn(coarse, fine, rank);
            EXPECT_TRUE(groups[place.color].emplace(place.key, rank).second) << "two ranks of one key";
          }
          for (const auto& [color, members] : groups) {
            ASSERT_EQ(static_cast<int>(members.size()), fine / coarse);
            const int first = members.begin()->second;
            const ElementRange piece = tree.RangeOf(coarse, first, elements);
            int64_t next = piece.begin;
            for (const auto& [key, rank] : members) {
              EXPECT_EQ(rank / fine, first / fine) << "not neighbours";
              EXPECT_EQ(tree.RangeOf(coarse, rank, elements), piece);
              const ElementRange part = tree.RangeOf(fine, rank, elements);
              EXPECT_EQ(part.begin, next);
              EXPECT_EQ(static_cast<size_t>(part.size()), tree.Parts(coarse, fine, rank, elements)[key]);
              next = part.end;
            }
            EXPECT_EQ(next, piece.end);
          }
        }
      }
    });
  }
}

}  // namespace
}  // namespace cohort::parallel
