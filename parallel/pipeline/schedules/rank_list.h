// What the generators build lists with.
#pragma once

#include <utility>
#include <vector>

#include "parallel/pipeline/schedule.h"

namespace cohort::parallel::pipeline::schedules {

inline Schedule EmptySchedule(Placement placement, int ranks, int chunks, int micro_batches) {
  return {micro_batches, PlaceStages(placement, ranks, chunks), std::vector<std::vector<Action>>(ranks)};
}

// The list of one rank, action by action: each is of the next micro-batch of its kind and stage, so that every stage
// takes them in ascending order. Of those beyond the last micro-batch nothing is written: an order that is free of
// deadlock for many micro-batches is so for fewer, because what they need is of the same micro-batch.
class RankList {
 public:
  RankList(Schedule& schedule, int rank) : schedule_(schedule), rank_(rank) {
    for (auto& row : next_) row.resize(schedule.stages());
  }

  void Forward(int stage) { Add(ActionKind::kForward, stage, next_[0][stage]++); }
  void Backward(int stage) {
    const int micro_batch = next_[1][stage]++;
    Add(ActionKind::kBackward, stage, micro_batch);
  }
  // The gradient of the weights is owed from here on.
  void Input(int stage) {
    const int micro_batch = next_[1][stage]++;
    Add(ActionKind::kBackwardInput, stage, micro_batch);
    owed_.emplace_back(stage, micro_batch);
  }
  // The oldest gradient of weights that is owed; of this stage, where it is given. False: none is.
  bool Weight(int stage = -1) {
    for (auto debt = owed_.begin(); debt != owed_.end(); ++debt) {
      if (stage >= 0 && debt->first != stage) continue;
      Add(ActionKind::kBackwardWeight, debt->first, debt->second);
      owed_.erase(debt);
      return true;
    }
    return false;
  }

 private:
  void Add(ActionKind kind, int stage, int micro_batch) {
    if (micro_batch < schedule_.micro_batches) schedule_.actions[rank_].push_back({kind, stage, micro_batch});
  }

  Schedule& schedule_;
  int rank_;
  std::vector<int> next_[2];               // micro-batch of the next forward, of the next backward; by stage
  std::vector<std::pair<int, int>> owed_;  // stage and micro-batch of gradients of weights, oldest first
};

}  // namespace cohort::parallel::pipeline::schedules
