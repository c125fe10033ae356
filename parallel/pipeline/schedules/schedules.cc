#include "parallel/pipeline/schedules/schedules.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "comm/check.h"
#include "parallel/pipeline/check.h"

namespace cohort::parallel::pipeline {
namespace {

constexpr char kAny[] = "";
constexpr char kOneStage[] = "it has one stage a rank; interleaved and the V schedules have more";
constexpr char kInterleaved[] = "with one stage a rank it is 1f1b";
constexpr char kV[] = "the way goes down the ranks and up again, so each has two stages";

// Not planned: gpipe takes as long as 1f1b and keeps more; dualpipe-v is as zb-v; the automatic ones are made from
// costs, which takes longer than a plan may.
constexpr ScheduleGenerator kGenerators[] = {
    {"gpipe", "all forwards, then all backwards", Placement::kLoop, 1, 0, kAny, false, false,
     schedules::GPipe},
    {"1f1b", "a backward as soon as it can be, so that few activations are kept", Placement::kLoop, 1, 1,
     kOneStage, false, true, schedules::OneFOneB},
    {"interleaved", "1F1B with several stages a rank: a smaller bubble, more messages", Placement::kLoop, 2,
     0, kInterleaved, false, true, schedules::Interleaved},
    {"zb-h1", "1F1B with gradients of weights moved into the bubble; at most as many activations",
     Placement::kLoop, 1, 1, kOneStage, true, true, schedules::ZeroBubbleH1},
    {"zb-v", "two stages a rank in a V, gradients of weights in the bubble", Placement::kV, 2, 2, kV, true,
     true, schedules::ZeroBubbleV},
    {"dualpipe-v", "bidirectional: both ends of a V at once, forwards beside backwards", Placement::kV, 2, 2,
     kV, true, false, schedules::DualPipeV},
    {"zb-auto", "made from the costs and the limit of activations, by a list scheduler", Placement::kLoop, 1,
     0, kAny, true, false, schedules::ZeroBubbleAuto},
    {"zb-auto-v", "the same on a V", Placement::kV, 2, 2, kV, true, false, schedules::ZeroBubbleAutoV},
};

}  // namespace

absl::Span<const ScheduleGenerator> ScheduleGenerators() { return kGenerators; }

const ScheduleGenerator* FindScheduleGenerator(absl::string_view name) {
  for (const ScheduleGenerator& row : kGenerators) {
    if (name == row.name) return &row;
  }
  return nullptr;
}

absl::StatusOr<Schedule> MakeSchedule(absl::string_view name, const ScheduleRequest& request) {
  const ScheduleGenerator* row = FindScheduleGenerator(name);
  if (row == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat(
        "no pipeline schedule is called '", name, "'; there are ",
        absl::StrJoin(kGenerators, ", ", [](std::string* out, const auto& known) { *out += known.name; })));
  }
  if (request.ranks < 1 || request.chunks < 1 || request.micro_batches < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, ": ranks, stages a rank and micro-batches must be 1 or more, not ", request.ranks,
                     ", ", request.chunks, " and ", request.micro_batches));
  }
  if (request.chunks < row->min_chunks || (row->max_chunks > 0 && request.chunks > row->max_chunks)) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, " cannot have ", request.chunks,
                     request.chunks == 1 ? " stage a rank: " : " stages a rank: ", row->why_chunks));
  }
  COHORT_RETURN_IF_ERROR(CheckCosts(request.costs, request.ranks * request.chunks, request.ranks));
  COHORT_ASSIGN_OR_RETURN(Schedule schedule, row->make(request));
  const absl::Status proved = CheckSchedule(schedule, {request.activation_limit, request.costs.stages});
  if (!proved.ok()) return absl::InvalidArgumentError(absl::StrCat(name, ": ", proved.message()));
  return schedule;
}

}  // namespace cohort::parallel::pipeline
