// Attention over a context group, and a batch as one rank of it sees it: what trainers call.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "parallel/sequence/attention_plan.h"
#include "parallel/sequence/context_group.h"
#include "parallel/sequence/ring_core.h"
#include "runtime/model/batch.h"
#include "runtime/model/spread.h"

namespace cohort::parallel {

// Both passes have the same head_parts. Neighbours of the group exchange heads, so that where it is numbered by hosts
// the all-to-alls stay on the fast links and the ring goes across (USP, section 3.2).
struct ContextWays {
  AttentionWay forward, backward;
};

// The core for batches split like this; all members of the group make it alike. Collective in nothing: no message is
// sent. INVALID_ARGUMENT where the split is not over the group or head_parts do not divide it. `seconds`, where not null,
// outlives the core.
absl::StatusOr<std::shared_ptr<runtime::AttentionCore>> MakeContextAttention(
    const ContextGroup& group, const TokenSplit& split, ContextWays ways, runtime::Device& device,
    AttentionSeconds* seconds = nullptr);

// The tokens of one rank of the split: tokens, targets and positions of the whole batch's, offsets of its own. No
// attention yet. `whole` has the sequences that were split.
runtime::TokenBatch BatchOfRank(const runtime::TokenBatch& whole, const TokenSplit& split, int rank);

}  // namespace cohort::parallel
