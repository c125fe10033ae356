// The schedules that Cohort can make. One table (schedules.cc): a new one is a file and a row.
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "parallel/pipeline/costs.h"
#include "parallel/pipeline/schedule.h"
#include "parallel/pipeline/simulate.h"

namespace cohort::parallel::pipeline {

struct ScheduleRequest {
  int ranks = 1;
  int chunks = 1;  // stages a rank
  int micro_batches = 1;
  PipelineCosts costs = {};            // what the list schedulers plan with; others do not look at it
  double activation_limit = kNoLimit;  // of each rank, in the unit of the costs
};

struct ScheduleGenerator {
  const char* name;
  const char* description;
  Placement placement;
  int min_chunks;
  int max_chunks;          // 0: any
  const char* why_chunks;  // why not fewer or more
  bool split_backward;     // the two gradients are actions of their own
  bool planned;            // the planner tries it, with min_chunks stages a rank
  absl::StatusOr<Schedule> (*make)(const ScheduleRequest& request);
};

absl::Span<const ScheduleGenerator> ScheduleGenerators();
// The row of that name, or nullptr.
const ScheduleGenerator* FindScheduleGenerator(absl::string_view name);

// The schedule, proved (check.h), within the limit. INVALID_ARGUMENT: no such name, a request that is not legal
// for it, or more activations than the limit.
absl::StatusOr<Schedule> MakeSchedule(absl::string_view name, const ScheduleRequest& request);

namespace schedules {

absl::StatusOr<Schedule> GPipe(const ScheduleRequest& request);
absl::StatusOr<Schedule> OneFOneB(const ScheduleRequest& request);
absl::StatusOr<Schedule> Interleaved(const ScheduleRequest& request);
absl::StatusOr<Schedule> ZeroBubbleH1(const ScheduleRequest& request);
absl::StatusOr<Schedule> ZeroBubbleV(const ScheduleRequest& request);
absl::StatusOr<Schedule> DualPipeV(const ScheduleRequest& request);
absl::StatusOr<Schedule> ZeroBubbleAuto(const ScheduleRequest& request);
absl::StatusOr<Schedule> ZeroBubbleAutoV(const ScheduleRequest& request);

}  // namespace schedules
}  // namespace cohort::parallel::pipeline
