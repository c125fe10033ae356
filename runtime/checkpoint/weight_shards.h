// Which tensors go into which files: a plan that every writer computes alike, its index, and its execution.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "runtime/checkpoint/safetensors.h"
#include "runtime/tensor.h"

namespace cohort::runtime {

inline constexpr char kSingleWeightsFile[] = "model.safetensors";
inline constexpr char kWeightsIndexFile[] = "model.safetensors.index.json";

// A tensor to be written, and who writes it.
struct PlannedTensor {
  TensorInfo info;
  int writer = 0;
};

struct WeightShard {
  std::string file;
  int writer = 0;
  std::vector<size_t> tensors;  // indices into the planned list, in the file's order
};

// The tensors of each writer, writers in ascending order, cut into files before `shard_bytes` would be passed
// (a larger tensor gets a file of its own). One file in all: model.safetensors, else
// model-00001-of-0000N.safetensors. In a file wider types come first, so that all are aligned. A pure
// function of its arguments.
std::vector<WeightShard> PlanWeightShards(absl::Span<const PlannedTensor> tensors, int64_t shard_bytes);

// The text of model.safetensors.index.json for the plan.
std::string WeightsIndexJson(absl::Span<const PlannedTensor> tensors, absl::Span<const WeightShard> shards);

// Writes one file of the plan. values[i] belongs to tensors[shard.tensors[i]]; any shape of its size and any
// float type, converted.
absl::Status WriteWeightShard(const std::string& folder, absl::Span<const PlannedTensor> tensors,
                              const WeightShard& shard, absl::Span<const Tensor> values);

// The whole of a model that one process holds: its files and, where they are several, the index. On the disk
// when this returns OK; not atomic.
struct NamedTensor {
  std::string name;
  Tensor values;
  DataType dtype;  // on disk
};
absl::Status WriteWeights(const std::string& folder, absl::Span<const NamedTensor> tensors,
                          int64_t shard_bytes);

}  // namespace cohort::runtime
