// DualPipeV: the order of DualPipe (DeepSeek-AI 2024, DeepSeek-V3 technical report, section 3.2.1), in which forwards
// of one direction run beside backwards of the other, cut in half as Sea AI Lab proposed: the two directions are the two
// legs of one V, instead of two copies of the model in opposite directions (Chimera, Li and Hoefler 2021, and DualPipe
// hold every parameter twice). So no parameter is held twice. Made for at least 2 ranks micro-batches; with
// fewer, those that are not there are left out.
#include <algorithm>

#include "parallel/pipeline/schedules/rank_list.h"
#include "parallel/pipeline/schedules/schedules.h"

namespace cohort::parallel::pipeline::schedules {

absl::StatusOr<Schedule> DualPipeV(const ScheduleRequest& request) {
  const int ranks = request.ranks;
  const int micro_batches = std::max(request.micro_batches, 2 * ranks);
  Schedule schedule = EmptySchedule(Placement::kV, ranks, 2, request.micro_batches);
  for (int rank = 0; rank < ranks; ++rank) {
    RankList list(schedule, rank);
    const int down = rank, up = 2 * ranks - 1 - rank, after = ranks - 1 - rank;
    // Fill: down alone, then both legs, then with the first gradients on their way.
    for (int i = 0; i < 2 * after; ++i) list.Forward(down);
    for (int i = 0; i < rank + 1; ++i) list.Forward(down), list.Forward(up);
    for (int i = 0; i < after; ++i) list.Input(up), list.Weight(), list.Forward(up);
    // A forward of one leg beside a backward of the other.
    for (int i = 0; i < micro_batches - 2 * ranks + rank + 1; ++i) {
      list.Forward(down), list.Backward(up);
      list.Forward(up), list.Backward(down);
    }
    for (int i = 0; i < after; ++i) list.Backward(up), list.Forward(up), list.Backward(down);
    // Drain: from the middle on gradients of weights wait, and fill the end.
    bool apart = false;
    const auto backward = [&](int stage) { apart ? list.Input(stage) : list.Backward(stage); };
    for (int i = 0; i < rank + 1; ++i) {
      const bool middle = i == (rank + 1) / 2;
      apart = apart || (middle && rank % 2 == 1);
      backward(up);
      apart = apart || (middle && rank % 2 == 0);
      backward(down);
    }
    for (int i = 0; i < after; ++i) list.Weight(), list.Input(down);
    while (list.Weight()) {
    }
  }
  return schedule;
}

}  // namespace cohort::parallel::pipeline::schedules
