// ZB-H1 (Qi et al. 2023, "Zero Bubble Pipeline Parallelism", section 2): 1F1B with the gradients of weights apart.
// Rank r owes r of them until the end, where it would be idle otherwise; so all ranks keep as much as 1F1B's first.
#include <algorithm>

#include "parallel/pipeline/schedules/rank_list.h"
#include "parallel/pipeline/schedules/schedules.h"

namespace cohort::parallel::pipeline::schedules {

absl::StatusOr<Schedule> ZeroBubbleH1(const ScheduleRequest& request) {
  Schedule schedule = EmptySchedule(Placement::kLoop, request.ranks, 1, request.micro_batches);
  for (int rank = 0; rank < request.ranks; ++rank) {
    RankList list(schedule, rank);
    const int ahead = std::min(request.ranks - 1 - rank, request.micro_batches);
    for (int i = 0; i < ahead; ++i) list.Forward(rank);
    for (int i = 0; i < request.micro_batches; ++i) {
      if (i + ahead < request.micro_batches) list.Forward(rank);
      list.Input(rank);
      if (i >= rank) list.Weight();
    }
    while (list.Weight()) {
    }
  }
  return schedule;
}

}  // namespace cohort::parallel::pipeline::schedules
