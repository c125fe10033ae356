#include "parallel/planner/shared_cores.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "comm/check.h"
#include "parallel/pipeline/costs.h"
#include "parallel/pipeline/walk.h"

namespace cohort::parallel::planner {
namespace {

using pipeline::Action;
using pipeline::ActionKind;

// What a rank does now.
struct RankState {
  size_t next = 0;      // in its list
  bool begun = false;   // that action has what it needs
  double messages = 0;  // seconds left of it, one after the other
  double computing = 0;
};

double MessagesOf(const Action& action, const SharedStage& stage) {
  if (action.kind == ActionKind::kForward) return stage.forward_messages;
  return action.kind == ActionKind::kBackwardWeight ? 0 : stage.input_messages;
}

}  // namespace

double SecondsOnSharedCores(const pipeline::Schedule& schedule, const std::vector<SharedStage>& stages,
                            double hop, double cores) {
  const int ranks = schedule.ranks(), number = schedule.stages();
  COHORT_CHECK(static_cast<int>(stages.size()) == number && cores > 0, "%zu costs of %d stages, %g cores",
               stages.size(), number, cores);
  const auto at = [&](int stage, int micro_batch) {
    return static_cast<size_t>(stage) * schedule.micro_batches + micro_batch;
  };
  std::vector<double>
      arrival[2];  // where results are used, of forwards and of gradients; endless: not made yet
  for (std::vector<double>& times : arrival) times.assign(at(number, 0), HUGE_VAL);
  std::vector<RankState> state(ranks);
  double now = 0;
  for (;;) {
    double next = HUGE_VAL;  // the time of what happens next
    int computing = 0;
    for (int rank = 0; rank < ranks; ++rank) {
      RankState& own = state[rank];
      if (own.next == schedule.actions[rank].size()) continue;
      const Action& action = schedule.actions[rank][own.next];
      if (!own.begun) {
        double ready = now;
        for (const pipeline::Need& need : pipeline::NeedsOf(action, number)) {
          if (need.stage == action.stage) continue;  // earlier in the same list
          ready = std::max(ready, arrival[need.gradient][at(need.stage, action.micro_batch)]);
        }
        if (ready > now) {
          next = std::min(next, ready);
          continue;
        }
        own.begun = true;
        own.messages = MessagesOf(action, stages[action.stage]);
        own.computing = pipeline::SecondsOf(action.kind, stages[action.stage]);
      }
      if (own.messages > 0) {
        next = std::min(next, now + own.messages);
      } else {
        ++computing;
      }
    }
    const double speed = computing == 0 ? 1 : std::min(1.0, cores / computing);
    for (const RankState& own : state) {
      if (own.begun && own.messages <= 0) next = std::min(next, now + own.computing / speed);
    }
    if (next == HUGE_VAL) return now;
    // What ends within so little of each other ends together.
    const double passed = next - now, little = 1e-12 * std::max(1e-3, next);
    now = next;
    for (int rank = 0; rank < ranks; ++rank) {
      RankState& own = state[rank];
      if (!own.begun) continue;
      if (own.messages > 0) {
        own.messages = own.messages - passed <= little ? 0 : own.messages - passed;
        continue;
      }
      own.computing -= passed * speed;
      if (own.computing > little) continue;
      own.begun = false;
      const Action& action = schedule.actions[rank][own.next++];
      if (action.kind == ActionKind::kBackwardWeight) continue;
      const bool gradient = action.kind != ActionKind::kForward;
      const int user = gradient ? action.stage - 1 : action.stage + 1;
      if (user < 0 || user >= number) continue;
      arrival[gradient][at(action.stage, action.micro_batch)] =
          now + (schedule.rank_of[user] == rank ? 0 : hop);
    }
  }
}

}  // namespace cohort::parallel::planner
