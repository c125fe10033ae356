// ZB-V (Qi et al. 2023, "Zero Bubble Pipeline Parallelism", the memory-efficient schedule): two stages a rank, placed
// as a V; no bubble but the first fill where forward, input and weight gradients cost the same, with the activations
// of 1F1B's first rank on every rank. Nothing is held twice. The order is made for at least 2 ranks - 1
// micro-batches; with fewer, those that are not there are left out.
#include <algorithm>

#include "parallel/pipeline/schedules/rank_list.h"
#include "parallel/pipeline/schedules/schedules.h"

namespace cohort::parallel::pipeline::schedules {

absl::StatusOr<Schedule> ZeroBubbleV(const ScheduleRequest& request) {
  const int ranks = request.ranks;
  const int micro_batches = std::max(request.micro_batches, 2 * ranks - 1);
  Schedule schedule = EmptySchedule(Placement::kV, ranks, 2, request.micro_batches);
  for (int rank = 0; rank < ranks; ++rank) {
    RankList list(schedule, rank);
    const int down = rank, up = 2 * ranks - 1 - rank;
    int down_forwards = 0, up_forwards = 0, down_backwards = 0, up_backwards = 0;
    const auto forward = [&](int stage) {
      list.Forward(stage);
      ++(stage == down ? down_forwards : up_forwards);
    };
    const auto backward = [&](int stage, bool weight) {
      list.Input(stage);
      if (weight) list.Weight(stage);
      ++(stage == down ? down_backwards : up_backwards);
    };
    // Fill: down alone until the first micro-batch is back up, then both ways.
    for (int i = 0; i < 2 * (ranks - rank) - 1; ++i) forward(down);
    for (int i = 0; i < rank; ++i) forward(up), forward(down);
    for (int i = 0; i < ranks - rank; ++i) forward(up), backward(up, true);
    // Six actions a micro-batch, without a gap where all cost the same.
    while (up_forwards < down_forwards || down_forwards < micro_batches) {
      if (down_forwards < micro_batches) forward(down);
      backward(down, true);
      forward(up);
      backward(up, true);
    }
    // Drain: gradients of weights wait, so that those of inputs go through at once, and fill the end.
    for (int i = 0; i < rank; ++i) backward(up, false), backward(down, false);
    for (int i = 0; i < ranks - rank; ++i) backward(down, true);
    while (up_backwards < micro_batches) backward(up, false);
    while (down_backwards < micro_batches) backward(down, false);
    while (list.Weight()) {
    }
  }
  return schedule;
}

}  // namespace cohort::parallel::pipeline::schedules
