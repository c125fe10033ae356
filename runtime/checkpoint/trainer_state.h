// trainer_state.json: a TrainerState and the optimizer's step, as text.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "runtime/checkpoint/checkpoint.h"

namespace cohort::runtime {

inline constexpr char kTrainerStateFile[] = "trainer_state.json";

struct SavedTrainerState {
  TrainerState trainer;
  int64_t optimizer_step = 0;
  int world = 1;  // ranks that wrote the checkpoint: so many optimizer files belong to it
};

std::string ToJson(const SavedTrainerState& state);
// INVALID_ARGUMENT names the file and the field.
absl::StatusOr<SavedTrainerState> ReadTrainerState(const std::string& path);

}  // namespace cohort::runtime
