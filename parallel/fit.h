// Whether a model can be trained as its options say on a mesh, before anything is made or sent. A pure
// function.
#pragma once

#include "absl/status/status.h"
#include "parallel/parallel_model.h"

namespace cohort::parallel {

// INVALID_ARGUMENT begins with the key that is wrong, and names the numbers and what to do: matrices, stages,
// experts or heads that do not divide, and pairs of strategies that would not be the same mathematics.
absl::Status CheckFit(const runtime::ModelConfig& config, const ParallelOptions& options, const Mesh& mesh);

}  // namespace cohort::parallel
