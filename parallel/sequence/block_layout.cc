#include "parallel/sequence/block_layout.h"

#include <algorithm>
#include <utility>

namespace cohort::parallel {

BlockLayout LayoutOf(const TokenSplit& split, int first, int count) {
  std::vector<std::vector<int32_t>> offsets, positions;
  std::vector<int32_t> begins;  // of each rank's part
  int32_t total = 0;
  for (int rank = first; rank < first + count; ++rank) {
    offsets.push_back(split.Offsets(rank));
    positions.push_back(split.Positions(rank));
    begins.push_back(total);
    total += static_cast<int32_t>(split.tokens(rank));
  }
  BlockLayout block;
  block.offsets.push_back(0);
  std::vector<std::pair<int32_t, int32_t>> tokens;  // position, source
  for (int64_t s = 0; s < split.sequences(); ++s) {
    tokens.clear();
    for (int i = 0; i < count; ++i) {
      for (int32_t t = offsets[i][s]; t < offsets[i][s + 1]; ++t)
        tokens.emplace_back(positions[i][t], begins[i] + t);
    }
    std::sort(tokens.begin(), tokens.end());
    for (const auto& [position, source] : tokens) {
      block.positions.push_back(position);
      block.sources.push_back(source);
    }
    block.offsets.push_back(static_cast<int32_t>(block.positions.size()));
  }
  block.places.resize(block.sources.size());
  for (size_t t = 0; t < block.sources.size(); ++t) block.places[block.sources[t]] = static_cast<int32_t>(t);
  return block;
}

int64_t MiddleKey(const BlockLayout& block) {
  int64_t pairs = 0, before = 0;
  const auto each = [&](auto&& fn) {
    for (size_t s = 0; s + 1 < block.offsets.size(); ++s) {
      // All tokens from a key on are queries that see it.
      for (int64_t j = block.offsets[s]; j < block.offsets[s + 1]; ++j) {
        if (fn(j, block.offsets[s + 1] - j)) return j;
      }
    }
    return int64_t{0};
  };
  each([&](int64_t, int64_t seen) { return pairs += seen, false; });
  return each([&](int64_t, int64_t seen) {
    const bool middle = 2 * before >= pairs;
    before += seen;
    return middle;
  });
}

}  // namespace cohort::parallel
