// Proves a schedule, or says what is wrong with it.
#pragma once

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "parallel/pipeline/costs.h"
#include "parallel/pipeline/schedule.h"

namespace cohort::parallel::pipeline {

// What no rank may exceed.
struct MemoryLimit {
  double activations = kNoLimit;            // in the unit of costs
  absl::Span<const StageCosts> costs = {};  // by stage; empty: one unit for each micro-batch of each stage
};

// What is wrong, and on which rank: -1 where on none in particular.
struct ScheduleFault {
  int rank = -1;
  std::string what;
};

// A fault where
// - a stage is on no rank, a rank has no stage, or an action is of a stage that is elsewhere or does not exist,
// - an action is missing, or there twice, or a stage's backward is both whole and in parts,
// - ranks that do their lists in order, with sends that never wait and receives that do, would wait for ever,
// - a rank would hold more activations than the limit.
// It names rank, action and reason; of several it is the first.
std::optional<ScheduleFault> FindFault(const Schedule& schedule, const MemoryLimit& limit = {});

// The same as INVALID_ARGUMENT.
absl::Status CheckSchedule(const Schedule& schedule, const MemoryLimit& limit = {});

// Whether every stage adds up its gradients of weights in ascending order of micro-batches: then sums have the same
// bits under every schedule that does. All generators of schedules/ do.
bool WeightGradientsAscend(const Schedule& schedule);

}  // namespace cohort::parallel::pipeline
