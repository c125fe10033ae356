// What a training run is made of before a model is spread: its configuration, completed, and its data.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "cohort/v1/config.pb.h"
#include "comm/communicator.h"
#include "runtime/config/config.h"
#include "runtime/data/loader.h"
#include "runtime/device/device.h"
#include "runtime/train/step_loop.h"

namespace cohort::tools {

struct TrainingData {
  std::shared_ptr<const runtime::TrainLoader> training;
  std::shared_ptr<const runtime::EvaluationLoader> held_out;  // null: none
  std::string tokenizer_json;
};
absl::StatusOr<TrainingData> OpenData(const v1::TrainConfig& config);

// What the configuration says of it, set or not yet: cpu or cuda.
std::string DeviceName(const v1::TrainConfig& config);

// Collective: complete for the ranks of `world`, of which this one computes on `device`; with parallel.mesh: auto they are
// measured first.
absl::StatusOr<runtime::ResolvedConfig> Resolve(v1::TrainConfig config, runtime::Device& device,
                                                comm::Communicator& world);

// What the step loop is told of a complete configuration.
runtime::StepLoopOptions LoopOptions(const v1::TrainConfig& config, bool evaluate);

}  // namespace cohort::tools
