// What the engine drives: something that computes steps.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "serving/step.h"

namespace cohort::serving {

struct RunnerInfo {
  int32_t ranks = 1;
  int32_t pages = 0;      // of each rank's cache
  int32_t page_size = 0;  // tokens
  int32_t vocabulary_size = 0;
  int32_t context_length = 0;  // the longest sequence the model takes
};

// Called by one thread. An error is final: the engine gives up the runner and answers everybody.
class ModelRunner {
 public:
  virtual ~ModelRunner() = default;
  virtual RunnerInfo info() const = 0;
  // One RankStep a rank; ranks without work have an empty one.
  virtual absl::StatusOr<StepResult> Run(const Step& step) = 0;
  // Nothing to do, but still here: called at least every EngineOptions::heartbeat while no step runs.
  virtual absl::Status Idle() { return absl::OkStatus(); }
  // No step comes any more. Ranks that wait for one are let go.
  virtual void Stop() {}
};

}  // namespace cohort::serving
