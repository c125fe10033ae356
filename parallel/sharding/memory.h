// What a sharding table says that a rank holds, in bytes: a pure function, which the engine's counter is held against.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "parallel/determinism/leaf_order.h"
#include "parallel/pipeline/schedule.h"
#include "parallel/sharding/gather_order.h"
#include "parallel/sharding/shard_tree.h"

namespace cohort::parallel {

// The parameters of one group that travel together.
struct BucketSize {
  int64_t elements;
  Splits splits;
  int rank;                          // of the replica group
  const LeafOrder* order = nullptr;  // deterministic mode, in which gradients are summed by it
};

// Of one rank. Activations, batches and what communication needs meanwhile are not in it.
struct StateMemory {
  int64_t parameters =
      0;                 // in the compute type, that stay: shards, or whole where not split; secondary shards
  int64_t gathered = 0;  // the most that is gathered beside them at a time
  int64_t gradients = 0;  // that stay
  // The most of whole gradients beside them at a time: being made and on their way, and in deterministic mode also
  // those that wait for their siblings.
  int64_t reducing = 0;
  int64_t optimizer = 0;  // two moments, and masters where they are not the parameters themselves
  int64_t peak = 0;       // the most of all of it at a time

  int64_t resident() const { return parameters + gradients + optimizer; }
  std::string DebugString() const;
};

// groups[g]: the buckets of group g of `layout`. Bytes of an element in the compute type and of one of state. `actions`:
// what is done with this part of the model in a step; empty: one micro-batch after another. Backwards in halves that
// interleave keep whole gradients of all groups between them. In deterministic mode all the actions of a step.
StateMemory PlanMemory(const std::vector<std::vector<BucketSize>>& groups, const GroupLayout& layout,
                       int64_t compute_bytes, int64_t state_bytes, bool same_type,
                       absl::Span<const pipeline::Action> actions = {});

}  // namespace cohort::parallel
