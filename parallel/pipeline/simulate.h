// What a schedule would take, from costs: no ranks, no clock.
#pragma once

#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "parallel/pipeline/costs.h"
#include "parallel/pipeline/schedule.h"

namespace cohort::parallel::pipeline {

struct PipelineCosts {
  std::vector<StageCosts> stages = {};  // by stage; empty: a second for each of the three
  TransferCosts transfer = {};
  std::vector<double> speeds = {};  // by rank, 2: in half the time; empty: 1
  // What each action really took, by rank in the order of its list, instead of what stages and speeds say: a step that
  // was measured is replayed. Empty: nothing was.
  std::vector<std::vector<double>> actions = {};
};

// INVALID_ARGUMENT: of another number of stages or ranks, negative or not finite.
absl::Status CheckCosts(const PipelineCosts& costs, int stages, int ranks);

struct TimedAction {
  Action action;
  double begin = 0;  // seconds from the start of the step
  double end = 0;
};

struct Simulation {
  double seconds = 0;                              // until the last rank is through
  std::vector<double> busy;                        // seconds, by rank
  std::vector<double> peak_activations;            // by rank, in the unit of the costs
  std::vector<std::vector<TimedAction>> timeline;  // by rank, in the order of its list

  // The share of all ranks' time in which they do nothing; 0 to 1.
  double BubbleFraction() const;
  // Idle time over busy time: what the literature gives for interleaved schedules.
  double BubbleOverBusy() const;
};

// Each action begins when its rank is through with the one before it and what it needs has arrived; B costs both
// gradients and passes its result on at its end. Errors: those of CheckSchedule and CheckCosts, and of
// costs.actions that do not fit.
absl::StatusOr<Simulation> SimulateSchedule(const Schedule& schedule, const PipelineCosts& costs = {});

}  // namespace cohort::parallel::pipeline
