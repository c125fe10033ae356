// Parts that lie side by side as one slice.
#pragma once

#include "comm/schedule.h"

namespace cohort::comm::algorithms {

// Calls visit(slice) for the slices of `items`, in their order; neighbours in one buffer as one, empty ones not at all.
template <typename Items, typename SliceOf, typename Visit>
void ForRuns(const Items& items, const SliceOf& slice_of, const Visit& visit) {
  Slice run;
  for (const auto& item : items) {
    const Slice slice = slice_of(item);
    if (slice.count == 0) continue;
    if (run.count > 0 && slice.buffer == run.buffer && slice.offset == run.offset + run.count) {
      run.count += slice.count;
      continue;
    }
    if (run.count > 0) visit(run);
    run = slice;
  }
  if (run.count > 0) visit(run);
}

}  // namespace cohort::comm::algorithms
