// Split-batch overlap: a batch in two halves, of which one is computed while the other's rows travel over the
// tensor axis.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "parallel/tensor/policy.h"
#include "runtime/model/batch.h"

namespace cohort::parallel {

struct SplitRule {
  int64_t tile = tensor_policy::kTileRows;
  int64_t least = tensor_policy::kLeastRows;  // tokens of a half
  // Only between sequences: where a context group computes attention, which knows whole ones only.
  bool whole_sequences = false;
};

// Tokens of the first half; 0: the batch had better stay whole. offsets: of sequences, from 0 to the number
// of tokens. The cut is the multiple of a tile that is nearest to the middle, so that both halves together
// have no more tiles than the whole (TokenWeave's smart split: Gond et al., 2025); between whole sequences
// the boundary that is nearest to it, if the smaller half is a quarter at least. Pure.
int64_t CutOf(absl::Span<const int32_t> offsets, const SplitRule& rule);

// The halves of a batch without an attention of its own. A sequence may be cut: the second half's queries
// then see the keys of its first part, which the first half's attention leaves for them layer by layer, and
// gives their gradients back the other way; so the forward of a layer has the first half first, and its
// backward the second.
std::vector<runtime::TokenBatch> Halves(const runtime::TokenBatch& whole, int64_t cut);

}  // namespace cohort::parallel
