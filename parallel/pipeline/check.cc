#include "parallel/pipeline/check.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "comm/check.h"
#include "parallel/pipeline/memory.h"
#include "parallel/pipeline/walk.h"

namespace cohort::parallel::pipeline {
namespace {

using Fault = std::optional<ScheduleFault>;

Fault Wrong(int rank, int index, const Action& action, const std::string& what) {
  return ScheduleFault{
      rank, absl::StrCat("rank ", rank, ", action ", index, " (", action.DebugString(), "): ", what)};
}

Fault CheckPlacement(const Schedule& schedule) {
  if (schedule.stages() < 1 || schedule.ranks() < 1 || schedule.micro_batches < 1) {
    return ScheduleFault{
        -1, absl::StrCat("a schedule has stages, ranks and micro-batches, 1 or more of each; here are ",
                         schedule.stages(), ", ", schedule.ranks(), " and ", schedule.micro_batches)};
  }
  std::vector<bool> used(schedule.ranks());
  for (int stage = 0; stage < schedule.stages(); ++stage) {
    const int rank = schedule.rank_of[stage];
    if (rank < 0 || rank >= schedule.ranks()) {
      return ScheduleFault{-1, absl::StrCat("stage ", stage, " is on rank ", rank,
                                            ", but the ranks are 0 to ", schedule.ranks() - 1)};
    }
    used[rank] = true;
  }
  const auto idle = std::find(used.begin(), used.end(), false);
  if (idle == used.end()) return std::nullopt;
  const auto rank = static_cast<int>(idle - used.begin());
  return ScheduleFault{rank, absl::StrCat("rank ", rank, " has no stage: ", schedule.stages(),
                                          " stages do not fill ", schedule.ranks(), " ranks")};
}

// Every action once, on the rank of its stage.
Fault CheckActions(const Schedule& schedule) {
  const int64_t forwards = static_cast<int64_t>(schedule.stages()) * schedule.micro_batches;
  int64_t actions = 0;
  for (const auto& list : schedule.actions) actions += static_cast<int64_t>(list.size());
  if (actions < forwards) {  // keeps the tables below as small as the lists
    return ScheduleFault{
        -1, absl::StrCat(schedule.stages(), " stages and ", schedule.micro_batches, " micro-batches need ",
                         2 * forwards, " actions or more, a forward and a backward of each; the lists have ",
                         actions)};
  }
  std::vector<std::array<bool, kNumActionKinds>> seen(forwards);
  for (int rank = 0; rank < schedule.ranks(); ++rank) {
    for (int i = 0; i < static_cast<int>(schedule.actions[rank].size()); ++i) {
      const Action& action = schedule.actions[rank][i];
      if (action.stage < 0 || action.stage >= schedule.stages()) {
        return Wrong(rank, i, action, absl::StrCat("the stages are 0 to ", schedule.stages() - 1));
      }
      if (action.micro_batch < 0 || action.micro_batch >= schedule.micro_batches) {
        return Wrong(rank, i, action,
                     absl::StrCat("the micro-batches are 0 to ", schedule.micro_batches - 1));
      }
      if (schedule.rank_of[action.stage] != rank) {
        return Wrong(rank, i, action,
                     absl::StrCat("stage ", action.stage, " is on rank ", schedule.rank_of[action.stage]));
      }
      auto& kinds = seen[static_cast<int64_t>(action.stage) * schedule.micro_batches + action.micro_batch];
      const auto had = [&](ActionKind kind) { return kinds[static_cast<int>(kind)]; };
      if (had(action.kind)) return Wrong(rank, i, action, "is there twice");
      const bool whole = action.kind == ActionKind::kBackward;
      const bool part =
          action.kind == ActionKind::kBackwardInput || action.kind == ActionKind::kBackwardWeight;
      if ((whole && (had(ActionKind::kBackwardInput) || had(ActionKind::kBackwardWeight))) ||
          (part && had(ActionKind::kBackward))) {
        return Wrong(rank, i, action,
                     "the backward is there whole (B) and in parts (I, W): one or the other");
      }
      kinds[static_cast<int>(action.kind)] = true;
    }
  }
  for (int64_t i = 0; i < forwards; ++i) {
    const auto had = [&](ActionKind kind) { return seen[i][static_cast<int>(kind)]; };
    const int stage = static_cast<int>(i / schedule.micro_batches);
    const int micro_batch = static_cast<int>(i % schedule.micro_batches);
    const char* missing = nullptr;
    if (!had(ActionKind::kForward)) missing = "forward (F)";
    if (missing == nullptr && !had(ActionKind::kBackward)) {
      const bool input = had(ActionKind::kBackwardInput), weight = had(ActionKind::kBackwardWeight);
      if (!input) missing = weight ? "gradient of the input (I)" : "backward (B, or I and W)";
      if (input && !weight) missing = "gradient of the weights (W)";
    }
    if (missing == nullptr) continue;
    const int rank = schedule.rank_of[stage];
    return ScheduleFault{rank, absl::StrCat("rank ", rank, " has no ", missing, " of stage ", stage,
                                            ", micro-batch ", micro_batch)};
  }
  return std::nullopt;
}

// Where a rank stands, and the first thing that it still waits for.
struct Wait {
  Action action;
  Need need;
};

Wait WaitOf(const Schedule& schedule, const std::vector<int>& reached, int rank) {
  const Action& action = schedule.actions[rank][reached[rank]];
  for (const Need& need : NeedsOf(action, schedule.stages())) {
    // It is not done where it lies beyond what its rank has reached.
    const int owner = schedule.rank_of[need.stage];
    const auto& list = schedule.actions[owner];
    const bool done = std::any_of(list.begin(), list.begin() + reached[owner], [&](const Action& other) {
      const bool gradient = other.kind == ActionKind::kBackward || other.kind == ActionKind::kBackwardInput;
      const bool kind_matches = need.gradient ? gradient : other.kind == ActionKind::kForward;
      return kind_matches && other.stage == need.stage && other.micro_batch == action.micro_batch;
    });
    if (!done) return {action, need};
  }
  COHORT_CHECK(false, "rank %d stands still without a reason", rank);
}

Fault CheckOrder(const Schedule& schedule) {
  const std::vector<int> reached = Walk(schedule, [](int, int) {});
  int rank = 0;
  while (rank < schedule.ranks() && reached[rank] == static_cast<int>(schedule.actions[rank].size())) ++rank;
  if (rank == schedule.ranks()) return std::nullopt;
  // From a rank that waits to the one that it waits for, until one comes again: those wait for each other.
  std::vector<int> chain;
  while (std::find(chain.begin(), chain.end(), rank) == chain.end()) {
    chain.push_back(rank);
    rank = schedule.rank_of[WaitOf(schedule, reached, rank).need.stage];
  }
  chain.erase(chain.begin(), std::find(chain.begin(), chain.end(), rank));
  std::vector<std::string> waits;
  for (const int member : chain) {
    const Wait wait = WaitOf(schedule, reached, member);
    const int owner = schedule.rank_of[wait.need.stage];
    waits.push_back(absl::StrCat(
        "rank ", member, ", action ", reached[member], " (", wait.action.DebugString(), "): waits for the ",
        wait.need.gradient ? "gradient" : "forward", " of stage ", wait.need.stage, ", micro-batch ",
        wait.action.micro_batch,
        owner == member ? ", which comes later in the same list" : absl::StrCat(", of rank ", owner)));
  }
  return ScheduleFault{chain.front(), absl::StrCat(chain.size() == 1 ? "wrong order: " : "deadlock: ",
                                                   absl::StrJoin(waits, "; "))};
}

Fault CheckMemory(const Schedule& schedule, const MemoryLimit& limit) {
  if (!limit.costs.empty() && static_cast<int>(limit.costs.size()) != schedule.stages()) {
    return ScheduleFault{-1, absl::StrCat("costs of ", limit.costs.size(), " stages, but ", schedule.stages(),
                                          " stages in the schedule")};
  }
  const std::vector<PeakActivations> peaks = FindPeakActivations(schedule, limit.costs);
  for (int rank = 0; rank < schedule.ranks(); ++rank) {
    const PeakActivations& peak = peaks[rank];
    if (peak.held <= limit.activations * (1 + 1e-9)) continue;
    return Wrong(rank, peak.action, schedule.actions[rank][peak.action],
                 absl::StrFormat("the rank would hold activations of %g here; the limit is %g", peak.held,
                                 limit.activations));
  }
  return std::nullopt;
}

}  // namespace

std::optional<ScheduleFault> FindFault(const Schedule& schedule, const MemoryLimit& limit) {
  if (Fault fault = CheckPlacement(schedule)) return fault;
  if (Fault fault = CheckActions(schedule)) return fault;
  if (Fault fault = CheckOrder(schedule)) return fault;
  return CheckMemory(schedule, limit);
}

absl::Status CheckSchedule(const Schedule& schedule, const MemoryLimit& limit) {
  const Fault fault = FindFault(schedule, limit);
  return fault ? absl::InvalidArgumentError(fault->what) : absl::OkStatus();
}

bool WeightGradientsAscend(const Schedule& schedule) {
  std::vector<int> last(schedule.stages(), -1);
  for (const auto& list : schedule.actions) {
    for (const Action& action : list) {
      if (action.kind != ActionKind::kBackward && action.kind != ActionKind::kBackwardWeight) continue;
      if (action.micro_batch <= last[action.stage]) return false;
      last[action.stage] = action.micro_batch;
    }
  }
  return true;
}

}  // namespace cohort::parallel::pipeline
