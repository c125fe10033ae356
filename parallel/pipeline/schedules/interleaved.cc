// Interleaved 1F1B (Narayanan et al. 2021, section 2.2.2): micro-batches go in groups through one chunk of a rank after
// the other. The paper's groups have as many micro-batches as there are ranks; here any number of micro-batches is cut
// into groups of nearly equal size, none smaller than the ranks where there are that many: a smaller one would leave
// ranks idle in the middle of the step, not only at its ends.
#include <algorithm>
#include <vector>

#include "parallel/pipeline/schedules/rank_list.h"
#include "parallel/pipeline/schedules/schedules.h"

namespace cohort::parallel::pipeline::schedules {

absl::StatusOr<Schedule> Interleaved(const ScheduleRequest& request) {
  const int ranks = request.ranks, chunks = request.chunks;
  Schedule schedule = EmptySchedule(Placement::kLoop, ranks, chunks, request.micro_batches);
  const int groups = std::max(1, request.micro_batches / ranks);
  const int largest = (request.micro_batches + groups - 1) / groups;
  std::vector<int> chunk_of;  // by position in the order of forwards; larger groups first
  for (int group = 0; group < groups; ++group) {
    const int size = (request.micro_batches + groups - 1 - group) / groups;
    for (int chunk = 0; chunk < chunks; ++chunk) chunk_of.insert(chunk_of.end(), size, chunk);
  }
  const int total = static_cast<int>(chunk_of.size());
  for (int rank = 0; rank < ranks; ++rank) {
    RankList list(schedule, rank);
    // The first backward of the last rank follows its forward at once, in the last chunk of the first group; each
    // rank before it is two forwards further ahead.
    const int ahead = std::min(total, 2 * (ranks - 1 - rank) + (chunks - 1) * largest);
    const auto forward = [&](int i) { list.Forward(chunk_of[i] * ranks + rank); };
    for (int i = 0; i < ahead; ++i) forward(i);
    for (int i = 0; i < total; ++i) {
      if (i + ahead < total) forward(i + ahead);
      list.Backward((chunks - 1 - chunk_of[i]) * ranks + rank);
    }
  }
  return schedule;
}

}  // namespace cohort::parallel::pipeline::schedules
