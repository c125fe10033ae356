#include "parallel/tensor/split_batch.h"

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "comm/check.h"
#include "parallel/tensor/continued_attention.h"

namespace cohort::parallel {

using runtime::Tensor;
using runtime::TokenBatch;

int64_t CutOf(absl::Span<const int32_t> offsets, const SplitRule& rule) {
  const int64_t total = offsets.empty() ? 0 : offsets.back();
  int64_t cut = 0;
  if (rule.whole_sequences) {
    for (const int32_t offset : offsets) {
      if (std::abs(2 * offset - total) < std::abs(2 * cut - total)) cut = offset;
    }
    if (4 * std::min(cut, total - cut) < total) return 0;
  } else {
    cut = (total + rule.tile) / (2 * rule.tile) * rule.tile;
  }
  return std::min(cut, total - cut) < std::max<int64_t>(rule.least, 1) ? 0 : cut;
}

std::vector<TokenBatch> Halves(const TokenBatch& whole, int64_t cut) {
  const int64_t total = whole.num_tokens();
  COHORT_CHECK(cut > 0 && cut < total && whole.attention == nullptr, "a batch of %ld tokens cut at %ld",
               static_cast<long>(total), static_cast<long>(cut));
  const std::vector<int32_t>& offsets = whole.host_offsets;
  const auto half = [&](int64_t begin, int64_t end) {
    TokenBatch batch;
    batch.tokens = whole.tokens.Slice(begin, end);
    batch.targets = whole.targets.Slice(begin, end);
    batch.positions = whole.positions.Slice(begin, end);
    batch.host_offsets = {0};
    for (size_t s = 1; s < offsets.size(); ++s) {
      // Each is in the half that it ends in, and in the first one where it begins in it; empty ones are in
      // one.
      const bool here = begin > 0 ? offsets[s] > cut : offsets[s - 1] < cut || offsets[s] <= cut;
      if (!here) continue;
      batch.host_offsets.push_back(static_cast<int32_t>(std::min<int64_t>(offsets[s], end) - begin));
    }
    batch.offsets = Tensor::FromHost(whole.tokens.device(), {static_cast<int64_t>(batch.host_offsets.size())},
                                     absl::MakeConstSpan(batch.host_offsets));
    return batch;
  };
  std::vector<TokenBatch> halves = {half(0, cut), half(cut, total)};
  if (std::find(offsets.begin(), offsets.end(), cut) == offsets.end())
    ContinueAttention(halves[0], halves[1]);
  return halves;
}

}  // namespace cohort::parallel
