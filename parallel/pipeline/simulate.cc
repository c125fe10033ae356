#include "parallel/pipeline/simulate.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "comm/check.h"
#include "parallel/pipeline/check.h"
#include "parallel/pipeline/memory.h"
#include "parallel/pipeline/walk.h"

namespace cohort::parallel::pipeline {
namespace {

absl::Status CheckActionTimes(const Schedule& schedule, const std::vector<std::vector<double>>& times) {
  if (times.empty()) return absl::OkStatus();
  bool fits = times.size() == schedule.actions.size();
  for (size_t rank = 0; fits && rank < times.size(); ++rank) {
    fits = times[rank].size() == schedule.actions[rank].size() &&
           std::all_of(times[rank].begin(), times[rank].end(),
                       [](double time) { return time >= 0 && std::isfinite(time); });
  }
  if (fits) return absl::OkStatus();
  return absl::InvalidArgumentError(
      "times of actions: there must be one for each action of each rank, finite and 0 or more");
}

}  // namespace

absl::Status CheckCosts(const PipelineCosts& costs, int stages, int ranks) {
  const auto fits = [](size_t size, int wanted) { return size == 0 || static_cast<int>(size) == wanted; };
  if (!fits(costs.stages.size(), stages) || !fits(costs.speeds.size(), ranks)) {
    return absl::InvalidArgumentError(absl::StrCat("costs of ", costs.stages.size(), " stages and speeds of ",
                                                   costs.speeds.size(), " ranks do not fit a schedule of ",
                                                   stages, " stages on ", ranks, " ranks"));
  }
  const auto bad = [](double value) { return !(value >= 0) || !std::isfinite(value); };
  for (size_t i = 0; i < costs.stages.size(); ++i) {
    const StageCosts& stage = costs.stages[i];
    if (bad(stage.forward) || bad(stage.input) || bad(stage.weight) || bad(stage.activations) ||
        bad(stage.kept_for_weight)) {
      return absl::InvalidArgumentError(
          absl::StrCat("costs of stage ", i, ": each must be finite and 0 or more"));
    }
  }
  if (bad(costs.transfer.latency) || bad(costs.transfer.bytes) || bad(costs.transfer.seconds_per_byte)) {
    return absl::InvalidArgumentError("costs of a transfer: each must be finite and 0 or more");
  }
  for (size_t i = 0; i < costs.speeds.size(); ++i) {
    if (bad(costs.speeds[i]) || costs.speeds[i] == 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("the speed of rank ", i, " is ", costs.speeds[i], "; it must be more than 0"));
    }
  }
  return absl::OkStatus();
}

double Simulation::BubbleFraction() const {
  const double all = seconds * static_cast<double>(busy.size());
  return all > 0 ? std::max(0.0, 1 - std::accumulate(busy.begin(), busy.end(), 0.0) / all) : 0;
}

double Simulation::BubbleOverBusy() const {
  const double work = std::accumulate(busy.begin(), busy.end(), 0.0);
  return work > 0 ? std::max(0.0, seconds * static_cast<double>(busy.size()) / work - 1) : 0;
}

absl::StatusOr<Simulation> SimulateSchedule(const Schedule& schedule, const PipelineCosts& costs) {
  COHORT_RETURN_IF_ERROR(CheckSchedule(schedule));
  COHORT_RETURN_IF_ERROR(CheckCosts(costs, schedule.stages(), schedule.ranks()));
  COHORT_RETURN_IF_ERROR(CheckActionTimes(schedule, costs.actions));
  const int stages = schedule.stages(), ranks = schedule.ranks();
  Simulation result;
  result.busy.resize(ranks);
  result.timeline.resize(ranks);
  for (const PeakActivations& peak : FindPeakActivations(schedule, costs.stages)) {
    result.peak_activations.push_back(peak.held);
  }
  // When results are there for the stage that uses them. A rank's messages leave in the order of its list, and its
  // times only grow, so a link's messages are met in the order in which they leave.
  const auto at = [&](int stage, int micro_batch) {
    return static_cast<size_t>(stage) * schedule.micro_batches + micro_batch;
  };
  std::vector<double> arrival[2];  // of forwards, of gradients
  for (std::vector<double>& times : arrival) times.resize(at(stages, 0));
  std::map<std::pair<int, int>, double> link_free;
  Walk(schedule, [&](int rank, int index) {
    const Action& action = schedule.actions[rank][index];
    std::vector<TimedAction>& line = result.timeline[rank];
    double begin = line.empty() ? 0 : line.back().end;
    for (const Need& need : NeedsOf(action, stages)) {
      if (need.stage == action.stage) continue;  // earlier in the same list
      begin = std::max(begin, arrival[need.gradient][at(need.stage, action.micro_batch)]);
    }
    const StageCosts stage = costs.stages.empty() ? StageCosts{} : costs.stages[action.stage];
    const double took = costs.actions.empty()
                            ? SecondsOf(action.kind, stage) / (costs.speeds.empty() ? 1 : costs.speeds[rank])
                            : costs.actions[rank][index];
    const double end = begin + took;
    line.push_back({action, begin, end});
    result.busy[rank] += took;
    result.seconds = std::max(result.seconds, end);
    if (action.kind == ActionKind::kBackwardWeight) return;
    const bool gradient = action.kind != ActionKind::kForward;
    const int user = gradient ? action.stage - 1 : action.stage + 1;
    if (user < 0 || user >= stages) return;
    double& there = arrival[gradient][at(action.stage, action.micro_batch)];
    there = end;
    if (schedule.rank_of[user] == rank) return;
    double& free = link_free[{rank, schedule.rank_of[user]}];
    free = std::max(free, end) + costs.transfer.bytes * costs.transfer.seconds_per_byte;
    there = free + costs.transfer.latency;
  });
  return result;
}

}  // namespace cohort::parallel::pipeline
