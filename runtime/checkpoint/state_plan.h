// What the ranks of a run write into a checkpoint together: files of whole tensors, and who writes which pieces of
// them. A pure function of what each rank announces, so that every rank computes the same plan.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "runtime/checkpoint/safetensors.h"
#include "runtime/model/piece.h"
#include "runtime/optim/optimizer.h"
#include "runtime/train/trainable.h"

namespace cohort::runtime {

// The kinds of optimizer state, each a tensor <parameter's name>/<kind> on disk; but for masters of the weights' own
// type, which are the weights.
inline constexpr char kMaster[] = "master";
inline constexpr const char* kStateKinds[] = {kMaster, "m", "v"};
std::string OptimizerFileName(int rank, int world);  // optimizer-00001-of-00004.safetensors

// Where the values of an entry lie: [piece.size()] each. master, m and v in the order of kStateKinds; none of a buffer.
struct StateTensors {
  Tensor value;
  std::vector<Tensor> state;
};
StateTensors TensorsOf(const StateEntry& entry, Trainable& trainable, const OptimizerState& optimizer);

// What a rank writes of one tensor; values [piece.size()], wherever they lie. Empty where the tensor has no elements.
struct WrittenState {
  Piece piece;
  DataType dtype;             // of the weights on disk
  Tensor value;               // any float type
  std::vector<Tensor> state;  // in the order of kStateKinds; none of a buffer
};
// Of what the trainable holds, the part that this rank writes: views of its memory.
std::vector<WrittenState> WrittenBy(Trainable& trainable, const OptimizerState& optimizer);

// What this rank writes, as a line for PlanState: kilobytes.
std::string AnnounceState(absl::Span<const WrittenState> written);

struct StateFile {
  std::string name;
  int owner = 0;  // the rank that makes it
  std::vector<TensorInfo> tensors;
};
struct StatePlan {
  std::vector<StateFile> files;  // of weights, then one of optimizer state a rank
  struct Place {
    size_t file, tensor;
  };
  absl::flat_hash_map<std::string, Place> places;  // of each tensor
  std::string index;                // model.safetensors.index.json; empty where one file has all
  DataType dtype = DataType::kF32;  // of the first tensor of weights
};

// `announced`: of each rank. A tensor lies in a file of the first rank that writes some of it (WeightShards of
// `shard_bytes`, and that rank's optimizer file). FAILED_PRECONDITION where the pieces of a tensor do not cover it
// exactly once, or ranks say different things of it: names the tensor and the ranks.
absl::StatusOr<StatePlan> PlanState(absl::Span<const std::string> announced, int64_t shard_bytes);

// This rank's files, and its pieces in all files, after every owner has made its own. On the disk when they return OK.
absl::Status CreateStateFiles(const std::string& folder, const StatePlan& plan, int rank);
absl::Status WriteStatePieces(const std::string& folder, const StatePlan& plan, int rank, int world,
                              absl::Span<const WrittenState> written);

}  // namespace cohort::runtime
