// GPipe (Huang et al. 2019): all forwards, then all backwards. With several stages a rank it is the
// breadth-first schedule of Lamy-Poirier 2022.
#include "parallel/pipeline/schedules/rank_list.h"
#include "parallel/pipeline/schedules/schedules.h"

namespace cohort::parallel::pipeline::schedules {

absl::StatusOr<Schedule> GPipe(const ScheduleRequest& request) {
  Schedule schedule = EmptySchedule(Placement::kLoop, request.ranks, request.chunks, request.micro_batches);
  for (int rank = 0; rank < request.ranks; ++rank) {
    RankList list(schedule, rank);
    for (int chunk = 0; chunk < request.chunks; ++chunk) {
      for (int i = 0; i < request.micro_batches; ++i) list.Forward(chunk * request.ranks + rank);
    }
    for (int chunk = request.chunks - 1; chunk >= 0; --chunk) {
      for (int i = 0; i < request.micro_batches; ++i) list.Backward(chunk * request.ranks + rank);
    }
  }
  return schedule;
}

}  // namespace cohort::parallel::pipeline::schedules
