// What stages and the messages between them cost. Shared by the simulator, the checker, the list scheduler and the
// planner.
#pragma once

#include <limits>

#include "comm/check.h"
#include "parallel/pipeline/schedule.h"

namespace cohort::parallel::pipeline {

// Of one stage, for one micro-batch. Times are in seconds (or any unit: the results have the same).
struct StageCosts {
  double forward = 1;
  double input = 1;   // gradient of the input
  double weight = 1;  // gradient of the weights
  // What is kept from the forward on, in bytes or any unit, and what of it is still kept between the two gradients.
  double activations = 1;
  double kept_for_weight = 1;
};

// What an action takes of its stage's times (StageCosts, or whatever has the same three).
template <typename Stage>
double SecondsOf(ActionKind kind, const Stage& stage) {
  switch (kind) {
    case ActionKind::kForward:
      return stage.forward;
    case ActionKind::kBackwardInput:
      return stage.input;
    case ActionKind::kBackwardWeight:
      return stage.weight;
    case ActionKind::kBackward:
      return stage.input + stage.weight;
  }
  COHORT_CHECK(false, "no such action: %d", static_cast<int>(kind));
}

// A message to another rank arrives after it waited for those before it on the same link (a direction between two
// ranks), `bytes * seconds_per_byte` and `latency`. Sending costs the ranks no time; stages of one rank send nothing.
struct TransferCosts {
  double latency = 0;  // seconds
  double bytes = 0;    // of one micro-batch's activations, or of their gradient
  double seconds_per_byte = 0;
};

inline constexpr double kNoLimit = std::numeric_limits<double>::infinity();

}  // namespace cohort::parallel::pipeline
