// Blocks of a model dealt to pipeline stages so that the slowest stage is as fast as can be.
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace cohort::parallel::pipeline {

struct StageSplit {
  std::vector<int>
      first_block;           // by stage, and at the end the number of blocks: stage s has [s], .. [s + 1] - 1
  std::vector<double> cost;  // by stage, with embedding and head; in the unit of the costs
};

// Contiguous blocks, one or more a stage. `blocks`: the cost of each (seconds or any unit); `embedding` is added to the
// first stage and `head` (final norm, logits and loss) to the last. Exact: no split has a smaller maximum, and of those
// with that maximum none is more even (sum of squares). INVALID_ARGUMENT: more stages than blocks, or a cost that is
// negative or not finite.
absl::StatusOr<StageSplit> BalanceStages(absl::Span<const double> blocks, double embedding, double head,
                                         int stages);

}  // namespace cohort::parallel::pipeline
