#include "parallel/sequence/token_split.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>

namespace cohort::parallel {
namespace {

constexpr SplitKind kSplitKinds[] = {SplitKind::kContiguous, SplitKind::kZigzag, SplitKind::kStriped};
const std::vector<int64_t> kSplitBatches[] = {
    {}, {0}, {1}, {1, 1, 1, 1, 1, 1, 1}, {64}, {17, 0, 3, 1, 40, 5}, {2, 2, 2, 100, 7, 7, 7, 31, 0, 1}};

// Pairs by their definition.
int64_t CountPairs(const TokenSplit& split, int query_rank, int key_rank) {
  const auto q = split.Positions(query_rank), k = split.Positions(key_rank);
  const auto q_offsets = split.Offsets(query_rank), k_offsets = split.Offsets(key_rank);
  int64_t pairs = 0;
  for (int64_t s = 0; s < split.sequences(); ++s) {
    for (int i = q_offsets[s]; i < q_offsets[s + 1]; ++i) {
      for (int j = k_offsets[s]; j < k_offsets[s + 1]; ++j) pairs += k[j] <= q[i];
    }
  }
  return pairs;
}

TEST(TokenSplit, EveryTokenIsHeldOnceInOrderAndEveryPairIsCountedOnce) {
  for (const SplitKind kind : kSplitKinds) {
    for (int ranks = 1; ranks <= 9; ++ranks) {
      for (const auto& lengths : kSplitBatches) {
        const auto split = TokenSplit::Create(kind, ranks, lengths);
        ASSERT_TRUE(split.ok()) << split.status();
        std::vector<int> held(split->total_tokens(), 0);
        int64_t fewest = split->total_tokens(), most = 0, pairs = 0;
        for (int rank = 0; rank < ranks; ++rank) {
          const auto places = split->Places(rank), positions = split->Positions(rank);
          const auto offsets = split->Offsets(rank);
          ASSERT_EQ(static_cast<int64_t>(places.size()), split->tokens(rank));
          ASSERT_EQ(offsets.back(), split->tokens(rank));
          for (const int32_t place : places) ++held.at(place);
          for (size_t s = 0; s < lengths.size(); ++s) {
            for (int32_t t = offsets[s]; t < offsets[s + 1]; ++t) {
              ASSERT_LT(positions[t], lengths[s]);
              ASSERT_TRUE(t == offsets[s] || positions[t] > positions[t - 1]);
            }
          }
          fewest = std::min(fewest, split->tokens(rank)), most = std::max(most, split->tokens(rank));
          for (int other = 0; other < ranks; ++other) {
            ASSERT_EQ(split->VisiblePairs(rank, other), CountPairs(*split, rank, other))
                << Name(kind) << " over " << ranks << ": " << rank << " sees " << other;
          }
          pairs += split->VisiblePairs(rank);
        }
        ASSERT_TRUE(std::all_of(held.begin(), held.end(), [](int times) { return times == 1; }));
        ASSERT_EQ(pairs, split->VisiblePairs());
        ASSERT_LE(most - std::min(fewest, most), 1) << Name(kind) << " over " << ranks;
      }
    }
  }
}

// The most pairs of a rank over the mean.
double Imbalance(SplitKind kind, int ranks, const std::vector<int64_t>& lengths) {
  const auto split = TokenSplit::Create(kind, ranks, lengths);
  int64_t most = 0;
  for (int rank = 0; rank < ranks; ++rank) most = std::max(most, split->VisiblePairs(rank));
  return static_cast<double>(most) * ranks / static_cast<double>(split->VisiblePairs());
}

TEST(TokenSplit, ZigzagAndStripedAreBalancedAndContiguousIsNot) {
  for (const auto& lengths : {std::vector<int64_t>{4096}, std::vector<int64_t>{4093},
                              std::vector<int64_t>{1001, 57, 3003, 1, 250}}) {
    for (const int ranks : {2, 3, 4, 8}) {
      EXPECT_LT(Imbalance(SplitKind::kZigzag, ranks, lengths), 1.01) << ranks;
      EXPECT_LT(Imbalance(SplitKind::kStriped, ranks, lengths), 1.01) << ranks;
      // The last of n ranks has the share (2 n - 1) / n^2.
      EXPECT_NEAR(Imbalance(SplitKind::kContiguous, ranks, lengths), 2 - 1.0 / ranks, 0.02) << ranks;
    }
  }
  // Short sequences: whoever came off worse goes first in the next.
  EXPECT_LT(Imbalance(SplitKind::kStriped, 4, std::vector<int64_t>(64, 4)), 1.05);
  EXPECT_LT(Imbalance(SplitKind::kZigzag, 4, std::vector<int64_t>(64, 4)), 1.05);
}

TEST(TokenSplit, EveryStepOfAStripedRingIsBalanced) {
  const auto split = TokenSplit::Create(SplitKind::kStriped, 4, {4096});
  for (int step = 0; step < 4; ++step) {
    int64_t fewest = split->VisiblePairs(), most = 0;
    for (int rank = 0; rank < 4; ++rank) {
      const int64_t pairs = split->VisiblePairs(rank, (rank + 4 - step) % 4);
      fewest = std::min(fewest, pairs), most = std::max(most, pairs);
    }
    EXPECT_LT(static_cast<double>(most), 1.01 * static_cast<double>(fewest)) << step;
  }
}

TEST(TokenSplit, WrongBatchesAreErrors) {
  EXPECT_EQ(TokenSplit::Create(SplitKind::kZigzag, 0, {4}).status().message(), "sequences over 0 ranks");
  EXPECT_EQ(TokenSplit::Create(SplitKind::kZigzag, 2, {4, -1}).status().message(),
            "sequence 1 has -1 tokens");
  EXPECT_FALSE(TokenSplit::Create(SplitKind::kZigzag, 2, {int64_t{1} << 31}).ok());
  EXPECT_EQ(*ParseSplitKind("striped"), SplitKind::kStriped);
  EXPECT_NE(ParseSplitKind("stripes").status().message().find("contiguous, zigzag, striped"),
            std::string::npos);
}

}  // namespace
}  // namespace cohort::parallel
