// What a schedule keeps.
#pragma once

#include <vector>

#include "absl/types/span.h"
#include "parallel/pipeline/costs.h"
#include "parallel/pipeline/schedule.h"

namespace cohort::parallel::pipeline {

// The largest sum of activations that each rank holds at a time, in the unit of `costs` (by stage; empty: one for each
// micro-batch of each stage), and the action at which it first does. It depends on the order of the list only, not on
// times. Requires actions of stages of the schedule.
struct PeakActivations {
  double held = 0;
  int action = -1;  // its index in the rank's list; -1: none
};
std::vector<PeakActivations> FindPeakActivations(const Schedule& schedule,
                                                 absl::Span<const StageCosts> costs = {});

}  // namespace cohort::parallel::pipeline
