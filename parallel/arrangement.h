// How a model is spread over ranks, as a configuration says it: the whole of it in one value.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "cohort/v1/config.pb.h"
#include "parallel/batch_parts.h"
#include "parallel/mesh.h"
#include "parallel/sharding/sharding.h"
#include "runtime/model/model_config.h"

namespace cohort::parallel {

struct Arrangement {
  MeshShape shape = {};
  Sharding sharding = {};  // of parameters, gradients and optimizer state over ranks that hold the same ones
  ContextOptions context = {};    // how context groups share sequences
  std::string schedule = "1f1b";  // of the pipeline: a row of pipeline/schedules
  int stages_per_rank = 1;        // of the pipeline
};

// Of a configuration that has its defaults. INVALID_ARGUMENT, beginning with the key that is wrong and naming the
// numbers: axes that do not divide the ranks, more stages than blocks, unknown names.
absl::StatusOr<Arrangement> ArrangementOf(const v1::ParallelSection& section,
                                          const runtime::ModelConfig& model, int ranks);

}  // namespace cohort::parallel
