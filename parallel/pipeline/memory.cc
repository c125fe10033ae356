#include "parallel/pipeline/memory.h"

namespace cohort::parallel::pipeline {

std::vector<PeakActivations> FindPeakActivations(const Schedule& schedule,
                                                 absl::Span<const StageCosts> costs) {
  std::vector<PeakActivations> peaks(schedule.ranks());
  for (int rank = 0; rank < schedule.ranks(); ++rank) {
    double held = 0;
    for (int i = 0; i < static_cast<int>(schedule.actions[rank].size()); ++i) {
      const Action& action = schedule.actions[rank][i];
      const StageCosts stage = costs.empty() ? StageCosts{} : costs[action.stage];
      switch (action.kind) {
        case ActionKind::kForward:
          held += stage.activations;
          break;
        case ActionKind::kBackwardInput:
          held -= stage.activations - stage.kept_for_weight;
          break;
        case ActionKind::kBackwardWeight:
          held -= stage.kept_for_weight;
          break;
        case ActionKind::kBackward:
          held -= stage.activations;
          break;
      }
      if (held > peaks[rank].held) peaks[rank] = {held, i};
    }
  }
  return peaks;
}

}  // namespace cohort::parallel::pipeline
