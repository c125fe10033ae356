// Which piece of a flat tensor a rank holds where it is split over some of its neighbours: pure arithmetic.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "parallel/sharding/sharding.h"

namespace cohort::parallel {

struct ElementRange {
  int64_t begin = 0, end = 0;
  int64_t size() const { return end - begin; }
  bool operator==(const ElementRange&) const = default;
};

// The nested splits of one replica group of R ranks: level sizes 1 = s0 | s1 | .. | sk = R. A split over s ranks
// has s pieces, [n i / s, n (i + 1) / s) of n elements: sizes differ by one at most and nothing is padded.
//
// Rank r has digits d_i = r / s_(i-1) mod s_i / s_(i-1), smallest level first, and at level s_i piece d_1 of s_1,
// within it piece d_2 of s_2 / s_1, and so on: its piece of a finer level lies within its own piece of a coarser one, and
// a run of s neighbours, from a multiple of s on, holds every piece of level s once.
//
// Example: R = 4, levels 1 | 2 | 4: at level 2 ranks 0..3 hold pieces 0 1 0 1, at level 4 pieces 0 2 1 3.
class ShardTree {
 public:
  // `levels`: any order, duplicates welcome; those that differ must form a chain of divisors of `replicas`.
  ShardTree(std::vector<int> levels, int replicas);
  explicit ShardTree(const Splits& splits)
      : ShardTree({splits.parameters, splits.secondary, splits.gradients, splits.optimizer},
                  splits.replicas) {}

  int replicas() const { return chain_.back(); }
  const std::vector<int>& levels() const { return chain_; }  // ascending, from 1 to replicas

  // The piece of `rank` at a level of the chain: [0, level).
  int Piece(int level, int rank) const;
  ElementRange RangeOf(int level, int rank, int64_t elements) const;
  // Whether the ranks hold the smallest pieces in their own order.
  bool InOrder() const;

  // A move between levels A < B goes on among the B / A ranks that hold the same piece of A, and of one run of B
  // neighbours: a reduce-scatter from A to B, an all-gather from B to A, and, with B = R, an all-reduce.
  // Ranks of equal color are together, in the order of their keys: which part of the A piece each one's B piece is.
  struct Place {
    int color, key;
  };
  Place PlaceIn(int coarse, int fine, int rank) const;
  // Elements of these parts, by key.
  std::vector<size_t> Parts(int coarse, int fine, int rank, int64_t elements) const;

 private:
  std::vector<int> chain_;
};

}  // namespace cohort::parallel
