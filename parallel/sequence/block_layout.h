// The tokens that neighbouring ranks hold together, in order: what a block of the ring looks like. Pure.
#pragma once

#include <cstdint>
#include <vector>

#include "parallel/sequence/token_split.h"

namespace cohort::parallel {

struct BlockLayout {
  std::vector<int32_t> offsets;    // [S + 1]
  std::vector<int32_t> positions;  // [T], ascending within each sequence
  // Where each token is in the ranks' parts laid one after another, and the other way round.
  std::vector<int32_t> sources, places;
  int64_t tokens() const { return static_cast<int64_t>(positions.size()); }
};

// Of ranks [first, first + count).
BlockLayout LayoutOf(const TokenSplit& split, int first, int count);

// A row of keys that divides the pairs of a block with itself into two about equal parts: those with keys before it and
// those with keys from it on. 0 where there is nothing to divide.
int64_t MiddleKey(const BlockLayout& block);

}  // namespace cohort::parallel
