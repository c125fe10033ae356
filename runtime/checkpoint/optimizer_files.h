// The optimizer's state in a checkpoint: one safetensors file a rank, whole tensors by parameter name, so
// that any number of ranks can read what any number wrote.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "runtime/optim/optimizer.h"
#include "runtime/train/trainable.h"

namespace cohort::runtime {

// Writes <name>/master, <name>/m and <name>/v of the entries that this rank writes into
// folder/optimizer-RRRRR-of-NNNNN.safetensors, even where there are none. On the disk when it returns OK.
absl::Status WriteOptimizerFile(const std::string& folder, Trainable& trainable,
                                const OptimizerState& optimizer);

// Fills master, m and v of this rank's entries from the files of the `world` ranks that wrote the checkpoint.
// NOT_FOUND where a file is missing; INVALID_ARGUMENT names the tensor that is missing or has another shape.
absl::Status ReadOptimizerFiles(const std::string& folder, int world, Trainable& trainable,
                                OptimizerState& optimizer);

}  // namespace cohort::runtime
