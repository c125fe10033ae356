#include "parallel/pipeline/schedules/list_scheduler.h"

#include <algorithm>
#include <map>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_format.h"
#include "comm/check.h"
#include "parallel/pipeline/schedules/rank_list.h"
#include "parallel/pipeline/simulate.h"

namespace cohort::parallel::pipeline::schedules {
namespace {

constexpr double kNever = kNoLimit;
// A gap is filled with a gradient of weights where it is at least this share of that one's time.
constexpr double kGapShares[] = {0.0, 0.25, 0.5, 0.75, 1.0};

struct Policy {
  double gap_share;
  bool
      unblock;  // where only memory keeps a forward back, a gradient of weights that frees some goes before all else
};

class ListScheduler {
 public:
  ListScheduler(Placement placement, const ScheduleRequest& request, Policy policy)
      : request_(request),
        policy_(policy),
        schedule_(EmptySchedule(placement, request.ranks, request.chunks, request.micro_batches)),
        stages_(request.costs.stages),
        free_(request.ranks),
        reserved_(request.ranks) {
    stages_.resize(schedule_.stages());  // costs of one where none are given
    for (int rank = 0; rank < request.ranks; ++rank) stages_of_.push_back(schedule_.StagesOf(rank));
    for (auto& row : next_) row.resize(schedule_.stages());
    for (auto& row : arrival_) {
      row.assign(schedule_.stages(), std::vector<double>(request.micro_batches, kNever));
    }
  }

  // What the rank keeps of a micro-batch in all its stages.
  double Share(int rank) const {
    double share = 0;
    for (const int stage : stages_of_[rank]) share += stages_[stage].activations;
    return share;
  }

  // The choice of a rank, of those that all ranks have, that begins first, again and again.
  Schedule Run() {
    const int64_t total = int64_t{3} * schedule_.stages() * request_.micro_batches;
    std::vector<Choice> choices;
    for (int rank = 0; rank < request_.ranks; ++rank) choices.push_back(Choose(rank));
    for (int64_t done = 0; done < total; ++done) {
      Choice best;
      int best_rank = -1;
      for (int rank = 0; rank < request_.ranks; ++rank) {
        if (choices[rank].begin < best.begin) best = choices[rank], best_rank = rank;
      }
      COHORT_CHECK(best_rank >= 0, "the list scheduler stands still after %lld actions",
                   static_cast<long long>(done));
      Do(best_rank, best);
      // Nothing else changes for the others than what the stages beside this one may wait for.
      for (int stage = std::max(0, best.stage - 1); stage <= best.stage + 1; ++stage) {
        if (stage == schedule_.stages()) break;
        choices[schedule_.rank_of[stage]] = Choose(schedule_.rank_of[stage]);
      }
    }
    return std::move(schedule_);
  }

 private:
  struct Choice {
    ActionKind kind = ActionKind::kForward;
    int stage = -1;
    double begin = kNever;
  };

  int& Next(ActionKind kind, int stage) { return next_[static_cast<int>(kind)][stage]; }

  Choice Choose(int rank) {
    const double now = free_[rank];
    Choice best, weight;
    const auto consider = [&](ActionKind kind, int stage, double ready) {
      const double begin = std::max(now, ready);
      if (begin < best.begin) best = {kind, stage, begin};
    };
    // Later stages first: they free memory sooner. Of equals, the one considered first is kept.
    const std::vector<int>& stages = stages_of_[rank];
    for (auto stage = stages.rbegin(); stage != stages.rend(); ++stage) {
      const int i = Next(ActionKind::kBackwardInput, *stage);
      if (i >= Next(ActionKind::kForward, *stage)) continue;
      const bool last = *stage + 1 == schedule_.stages();
      consider(ActionKind::kBackwardInput, *stage, last ? 0 : arrival_[1][*stage + 1][i]);
    }
    bool blocked = false;
    for (auto stage = stages.rbegin(); stage != stages.rend(); ++stage) {
      const int i = Next(ActionKind::kForward, *stage);
      if (i == request_.micro_batches) continue;
      const bool enters = *stage == stages.front();
      const double ready = *stage == 0 ? 0 : arrival_[0][*stage - 1][i];
      if (enters && reserved_[rank] + Share(rank) > request_.activation_limit * (1 + 1e-9)) {
        blocked = blocked || ready <= now;
      } else {
        consider(ActionKind::kForward, *stage, ready);
      }
    }
    for (auto stage = stages.rbegin(); stage != stages.rend(); ++stage) {
      if (Next(ActionKind::kBackwardWeight, *stage) == Next(ActionKind::kBackwardInput, *stage)) continue;
      const double took = stages_[*stage].weight / SpeedOf(rank);
      const bool fits =
          (policy_.unblock && blocked) || (best.begin > now && best.begin - now >= policy_.gap_share * took);
      if (fits && weight.stage < 0) weight = {ActionKind::kBackwardWeight, *stage, now};
    }
    return weight.stage >= 0 ? weight : best;
  }

  void Do(int rank, const Choice& choice) {
    const StageCosts& costs = stages_[choice.stage];
    const int micro_batch = Next(choice.kind, choice.stage)++;
    schedule_.actions[rank].push_back({choice.kind, choice.stage, micro_batch});
    switch (choice.kind) {
      case ActionKind::kForward:
        if (choice.stage == stages_of_[rank].front()) reserved_[rank] += Share(rank);
        break;
      case ActionKind::kBackwardInput:
        reserved_[rank] -= costs.activations - costs.kept_for_weight;
        break;
      case ActionKind::kBackwardWeight:
        reserved_[rank] -= costs.kept_for_weight;
        break;
      case ActionKind::kBackward:
        COHORT_CHECK(false, "the list scheduler has the two gradients apart");
    }
    const double end = choice.begin + SecondsOf(choice.kind, costs) / SpeedOf(rank);
    free_[rank] = end;
    if (choice.kind == ActionKind::kBackwardWeight) return;
    const bool gradient = choice.kind == ActionKind::kBackwardInput;
    double& there = arrival_[gradient][choice.stage][micro_batch];
    there = end;
    const int user = gradient ? choice.stage - 1 : choice.stage + 1;
    if (user < 0 || user >= schedule_.stages() || schedule_.rank_of[user] == rank) return;
    const TransferCosts& transfer = request_.costs.transfer;
    double& link = link_free_[{rank, schedule_.rank_of[user]}];
    link = std::max(link, end) + transfer.bytes * transfer.seconds_per_byte;
    there = link + transfer.latency;
  }

  double SpeedOf(int rank) const { return request_.costs.speeds.empty() ? 1 : request_.costs.speeds[rank]; }

  const ScheduleRequest& request_;
  const Policy policy_;
  Schedule schedule_;
  std::vector<StageCosts> stages_;
  std::vector<std::vector<int>> stages_of_;  // by rank
  std::vector<double> free_;                 // by rank: when it is through with its list so far
  std::vector<double> reserved_;             // by rank: activations
  std::vector<int> next_[kNumActionKinds];   // by stage: the next micro-batch
  // When a forward (0) or gradient of an input (1) is there for its user: by stage, by micro-batch.
  std::vector<std::vector<double>> arrival_[2];
  std::map<std::pair<int, int>, double> link_free_;
};

}  // namespace

absl::Status BestSchedule::Offer(Schedule candidate, const PipelineCosts& costs) {
  COHORT_ASSIGN_OR_RETURN(const Simulation simulation, SimulateSchedule(candidate, costs));
  const auto& peaks = simulation.peak_activations;
  const double most = *std::max_element(peaks.begin(), peaks.end());
  // Times that differ by rounding are equal.
  const bool faster = simulation.seconds < seconds * (1 - 1e-9);
  const bool equal = !faster && simulation.seconds <= seconds * (1 + 1e-9);
  if (!faster && !(equal && most < held)) return absl::OkStatus();
  schedule = std::move(candidate);
  seconds = simulation.seconds;
  held = most;
  return absl::OkStatus();
}

absl::StatusOr<Schedule> ListSchedule(Placement placement, const ScheduleRequest& request) {
  for (int rank = 0; rank < request.ranks; ++rank) {
    const double share = ListScheduler(placement, request, {}).Share(rank);
    if (share <= request.activation_limit) continue;
    return absl::InvalidArgumentError(
        absl::StrFormat("one micro-batch keeps activations of %g on rank %d; the limit is %g", share, rank,
                        request.activation_limit));
  }
  BestSchedule best;
  for (const double share : kGapShares) {
    for (const bool unblock : {false, true}) {
      COHORT_RETURN_IF_ERROR(
          best.Offer(ListScheduler(placement, request, {share, unblock}).Run(), request.costs));
    }
  }
  return std::move(best.schedule);
}

}  // namespace cohort::parallel::pipeline::schedules
