// Proves a batch plan: that it keeps its limits, wrongs nobody and gets ahead.
#pragma once

#include "absl/status/status.h"
#include "serving/batch_plan.h"

namespace cohort::serving {

// INTERNAL names the first rule that the plan breaks:
//  - every slice is of a sequence that runs or is admitted and is not preempted, once, and of no more tokens
//  than it
//    has left; every decode that is not preempted has its slice;
//  - no rank exceeds its tokens, its sequences or its pages, and every slice has pages for its tokens;
//  - only younger sequences are preempted for the sake of older ones, none without need, and never the
//  oldest;
//  - admissions are in order of arrival: nobody that was not blocked is overtaken;
//  - where anybody runs, or somebody waits unblocked and nobody runs, something is computed.
absl::Status CheckBatchPlan(const PlanInput& input, const BatchPlan& plan);

}  // namespace cohort::serving
