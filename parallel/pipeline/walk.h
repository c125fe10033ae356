// All ranks doing their lists together, without times: the one place that knows what an action waits for.
#pragma once

#include <functional>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "parallel/pipeline/schedule.h"

namespace cohort::parallel::pipeline {

// A result that an action waits for: of a stage's forward, or of its gradient of the input (kBackwardInput or
// kBackward), for the same micro-batch.
struct Need {
  bool gradient = false;
  int stage = 0;
};
// F: the forward of the stage before. I, B: the forward of the stage itself, and the gradient of the stage after it.
// W: the gradient of the input of the stage itself.
using Needs = absl::InlinedVector<Need, 2>;
Needs NeedsOf(const Action& action, int stages);

// Calls visit(rank, index in its list) for each action, in an order in which every list is in order and everything
// comes after what it needs. Returns how far each rank came: less than its whole list where ranks wait for each other
// for ever, or for what nobody does. Requires actions whose stages and micro-batches are in range.
std::vector<int> Walk(const Schedule& schedule, const std::function<void(int rank, int index)>& visit);

}  // namespace cohort::parallel::pipeline
