// What a pipeline schedule takes where its ranks share cores: while one waits, the others compute faster.
#pragma once

#include <vector>

#include "parallel/pipeline/schedule.h"

namespace cohort::parallel::planner {

// Of one stage and micro-batch, in seconds: computing, by a rank that has a core for itself, and the messages within its
// layers before it, during which a rank needs no core.
struct SharedStage {
  double forward = 0, input = 0, weight = 0;
  double forward_messages = 0, input_messages = 0;

  double total() const { return forward + input + weight + forward_messages + input_messages; }
};

// Until the last rank is through. `stages`: by stage of a schedule that was checked; `hop`: seconds of a message to
// another rank; `cores`: of all ranks together, above 0. Ranks that compute at a time have equal parts of the cores, a
// whole one at most. With a core for each it is what pipeline::SimulateSchedule says.
double SecondsOnSharedCores(const pipeline::Schedule& schedule, const std::vector<SharedStage>& stages,
                            double hop, double cores);

}  // namespace cohort::parallel::planner
