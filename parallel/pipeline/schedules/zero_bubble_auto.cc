// Zero-bubble schedules made from costs and a limit of activations, on both placements.
#include "parallel/pipeline/schedules/list_scheduler.h"
#include "parallel/pipeline/schedules/schedules.h"

namespace cohort::parallel::pipeline::schedules {

absl::StatusOr<Schedule> ZeroBubbleAuto(const ScheduleRequest& request) {
  return ListSchedule(Placement::kLoop, request);
}

absl::StatusOr<Schedule> ZeroBubbleAutoV(const ScheduleRequest& request) {
  return ListSchedule(Placement::kV, request);
}

}  // namespace cohort::parallel::pipeline::schedules
