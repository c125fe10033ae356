// Zero-bubble schedules for given costs and a limit of activations, on both placements: what the list scheduler makes,
// or the published schedule of that placement where it is better within the limit.
#include <utility>

#include "absl/types/span.h"
#include "comm/check.h"
#include "parallel/pipeline/check.h"
#include "parallel/pipeline/schedules/list_scheduler.h"
#include "parallel/pipeline/schedules/schedules.h"

namespace cohort::parallel::pipeline::schedules {
namespace {

using MakePublished = absl::StatusOr<Schedule> (*)(const ScheduleRequest& request);

absl::StatusOr<Schedule> Fastest(Placement placement, const ScheduleRequest& request,
                                 absl::Span<const MakePublished> published) {
  BestSchedule best;
  COHORT_ASSIGN_OR_RETURN(Schedule listed, ListSchedule(placement, request));
  COHORT_RETURN_IF_ERROR(best.Offer(std::move(listed), request.costs));
  for (const MakePublished make : published) {
    COHORT_ASSIGN_OR_RETURN(Schedule schedule, make(request));
    if (!CheckSchedule(schedule, {request.activation_limit, request.costs.stages}).ok()) continue;
    COHORT_RETURN_IF_ERROR(best.Offer(std::move(schedule), request.costs));
  }
  return std::move(best.schedule);
}

}  // namespace

absl::StatusOr<Schedule> ZeroBubbleAuto(const ScheduleRequest& request) {
  const MakePublished published[] = {ZeroBubbleH1};  // has one stage a rank
  return Fastest(Placement::kLoop, request, absl::MakeConstSpan(published, request.chunks == 1 ? 1 : 0));
}

absl::StatusOr<Schedule> ZeroBubbleAutoV(const ScheduleRequest& request) {
  const MakePublished published[] = {ZeroBubbleV, DualPipeV};
  return Fastest(Placement::kV, request, published);
}

}  // namespace cohort::parallel::pipeline::schedules
