// Where the state of a training lies: on any mesh, from the configuration alone; and in the memory of a rank that runs.
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "parallel/arrangement.h"
#include "parallel/mesh.h"
#include "parallel/reshard/layout.h"
#include "runtime/device/device.h"
#include "runtime/model/model_config.h"
#include "runtime/optim/optimizer.h"
#include "runtime/train/trainable.h"

namespace cohort::parallel {

// State, by name: masters and moments, "<parameter>/master", "/m" and "/v", and buffers, "<buffer>", all in the state
// type. Values are not in it: they are the masters, rounded.

// By rank of the mesh. Pure: what each rank of a ParallelModel on this mesh holds, in the order of HeldBy. `state`: the
// device's state type. `deterministic`: as ParallelOptions has it, which tied embeddings depend on. INVALID_ARGUMENT where the model or the arrangement do not fit the mesh.
absl::StatusOr<Layout> TrainingLayout(const runtime::ModelConfig& config, const Arrangement& arrangement,
                                      const Mesh& mesh, DataType state = DataType::kF32,
                                      bool deterministic = false);

// What this rank's part of a training holds, and where; the memory is the trainable's and the optimizer's.
struct HeldState {
  std::vector<HeldPiece> pieces;
  std::vector<void*> memory;              // of each; null where it is empty
  std::vector<runtime::Device*> devices;  // whose memory that is
};
HeldState HeldBy(runtime::Trainable& trainable, const runtime::OptimizerState& optimizer);

}  // namespace cohort::parallel
