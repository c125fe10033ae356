// The optimizer's state read from a checkpoint: safetensors files of whole tensors by parameter name (state_plan.h
// writes them), so that any ranks can read what any others wrote.
#pragma once

#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "runtime/checkpoint/hf_folder.h"
#include "runtime/optim/optimizer.h"
#include "runtime/train/trainable.h"

namespace cohort::runtime {

// Those of the `world` ranks that wrote a checkpoint.
class OptimizerFiles {
 public:
  // NOT_FOUND where one is missing.
  static absl::StatusOr<OptimizerFiles> Open(const std::string& folder, int world);
  // The file that has a tensor of this name; null where none has.
  const SafetensorsFile* Find(const std::string& name) const;

 private:
  std::vector<SafetensorsFile> files_;
  absl::flat_hash_map<std::string, size_t> file_of_;
};

// Fills master, m and v of this rank's entries from the files of the `world` ranks that wrote the checkpoint, or masters
// from its `weights` where these are as exact; reads no more of them than that. NOT_FOUND where a file is missing; INVALID_ARGUMENT names the tensor that is missing or has
// another shape.
absl::Status ReadOptimizerFiles(const HfFolder& weights, int world, Trainable& trainable,
                                OptimizerState& optimizer);

}  // namespace cohort::runtime
