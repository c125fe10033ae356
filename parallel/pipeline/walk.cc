#include "parallel/pipeline/walk.h"

#include <algorithm>
#include <cstddef>

namespace cohort::parallel::pipeline {

Needs NeedsOf(const Action& action, int stages) {
  Needs needs;
  switch (action.kind) {
    case ActionKind::kForward:
      if (action.stage > 0) needs.push_back({false, action.stage - 1});
      break;
    case ActionKind::kBackwardInput:
    case ActionKind::kBackward:
      needs.push_back({false, action.stage});
      if (action.stage + 1 < stages) needs.push_back({true, action.stage + 1});
      break;
    case ActionKind::kBackwardWeight:
      needs.push_back({true, action.stage});
      break;
  }
  return needs;
}

std::vector<int> Walk(const Schedule& schedule, const std::function<void(int, int)>& visit) {
  const int stages = schedule.stages();
  const auto at = [&](int stage, int micro_batch) {
    return static_cast<size_t>(stage) * schedule.micro_batches + micro_batch;
  };
  std::vector<bool> done[2];  // forwards, gradients
  for (std::vector<bool>& results : done) results.resize(at(stages, 0));
  std::vector<int> reached(schedule.ranks());
  std::vector<int> awake(schedule.ranks());  // ranks that may go on, the last one next
  for (int i = 0; i < schedule.ranks(); ++i) awake[i] = schedule.ranks() - 1 - i;
  while (!awake.empty()) {
    const int rank = awake.back();
    awake.pop_back();
    const std::vector<Action>& list = schedule.actions[rank];
    for (int& next = reached[rank]; next < static_cast<int>(list.size()); ++next) {
      const Action& action = list[next];
      const Needs needs = NeedsOf(action, stages);
      const bool ready = std::all_of(needs.begin(), needs.end(), [&](const Need& need) {
        return done[need.gradient][at(need.stage, action.micro_batch)];
      });
      if (!ready) break;
      visit(rank, next);
      if (action.kind == ActionKind::kBackwardWeight) continue;
      const bool gradient = action.kind != ActionKind::kForward;
      done[gradient][at(action.stage, action.micro_batch)] = true;
      const int user = gradient ? action.stage - 1 : action.stage + 1;
      if (user >= 0 && user < stages && schedule.rank_of[user] != rank) {
        awake.push_back(schedule.rank_of[user]);
      }
    }
  }
  return reached;
}

}  // namespace cohort::parallel::pipeline
