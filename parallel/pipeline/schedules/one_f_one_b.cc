// 1F1B (PipeDream-Flush, Narayanan et al. 2021, section 2.2.1): rank r keeps at most ranks - r micro-batches.
#include <algorithm>

#include "parallel/pipeline/schedules/rank_list.h"
#include "parallel/pipeline/schedules/schedules.h"

namespace cohort::parallel::pipeline::schedules {

absl::StatusOr<Schedule> OneFOneB(const ScheduleRequest& request) {
  Schedule schedule = EmptySchedule(Placement::kLoop, request.ranks, 1, request.micro_batches);
  for (int rank = 0; rank < request.ranks; ++rank) {
    RankList list(schedule, rank);
    const int ahead = std::min(request.ranks - 1 - rank, request.micro_batches);
    for (int i = 0; i < ahead; ++i) list.Forward(rank);
    for (int i = 0; i < request.micro_batches; ++i) {
      if (i + ahead < request.micro_batches) list.Forward(rank);
      list.Backward(rank);
    }
  }
  return schedule;
}

}  // namespace cohort::parallel::pipeline::schedules
