// A schedule from costs, for any placement.
#pragma once

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "parallel/pipeline/schedules/schedules.h"

namespace cohort::parallel::pipeline::schedules {

// The best of the schedules offered: the fastest, and of equals the one that keeps least.
struct BestSchedule {
  Schedule schedule;
  double seconds = kNoLimit;
  double held = kNoLimit;  // of the rank that keeps most

  absl::Status Offer(Schedule candidate, const PipelineCosts& costs);
};

// Input and weight gradients apart (the heuristic of Qi et al. 2023, section 3, as a list scheduler): whenever a rank
// is free it does, of what can begin first, a gradient of an input, else the forward of its latest stage, and
// fills gaps with gradients of weights. Several ways to fill gaps are simulated and the fastest is returned.
//
// Within request.activation_limit: a rank takes a micro-batch into its first stage only while what all its stages will
// keep of the micro-batches that it has taken stays within the limit. That can never deadlock, and keeps less than the
// limit allows where a rank's stages are far apart. INVALID_ARGUMENT where not even one micro-batch fits.
absl::StatusOr<Schedule> ListSchedule(Placement placement, const ScheduleRequest& request);

}  // namespace cohort::parallel::pipeline::schedules
