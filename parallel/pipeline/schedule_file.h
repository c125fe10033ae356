// Schedules as text: a user's own, and ours to be looked at or changed.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "parallel/pipeline/schedule.h"

namespace cohort::parallel::pipeline {

// A line a rank, in the order of ranks; on it the rank's actions in the order in which it does them, with commas
// between them. An action is a stage, a letter (F: forward, I: gradient of the input, W: gradient of the weights,
// B: both) and a micro-batch: 2F0. The files that PyTorch's pipeline schedules export look the same. Empty cells (idle
// slots) and blanks mean nothing; a line that is empty or begins with # is skipped. Which stage is on which rank, and
// how many stages and micro-batches there are, follows from the actions.
//
//   # two stages, three micro-batches
//   0F0,0F1,0B0,0F2,0B1,0B2
//   1F0,1B0,1F1,1B1,1F2,1B2
//
// INVALID_ARGUMENT: `path` and line of what cannot be read, or of the rank at which FindFault (check.h) finds one.
absl::StatusOr<Schedule> ParseSchedule(absl::string_view text, absl::string_view path);

std::string ScheduleText(const Schedule& schedule);

}  // namespace cohort::parallel::pipeline
