// Weights in the Hugging Face layout: model.safetensors, or shards with model.safetensors.index.json.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "runtime/checkpoint/safetensors.h"
#include "runtime/model/decoder.h"

namespace cohort::runtime {

// The tensors of a folder by name, whichever file they lie in. Copies share the mappings. Thread-safe.
class HfFolder {
 public:
  // NOT_FOUND where the folder has no weights or a shard of its index is missing; INVALID_ARGUMENT where a
  // file is broken or the index names a tensor that its shard does not have. Tensors that an index leaves out
  // do not exist.
  static absl::StatusOr<HfFolder> Open(const std::string& folder);

  const std::string& folder() const { return folder_; }
  std::vector<std::string> names() const;  // sorted
  const TensorInfo* Find(const std::string& name) const;
  // As SafetensorsFile's.
  absl::StatusOr<Tensor> Read(const std::string& name) const;
  absl::StatusOr<Tensor> ReadPiece(const Piece& piece) const;

 private:
  HfFolder() = default;
  absl::Status AddIndex(const std::string& path);

  std::string folder_;
  std::vector<SafetensorsFile> files_;
  absl::flat_hash_map<std::string, size_t> file_of_;  // of each tensor, in files_
};

// What LoadParameters is to fill. `name` is the tensor's, as on disk.
struct NamedParameter {
  std::string name;
  Parameter* parameter;
};

// Tensors of the model that other ranks hold and check, by name.
using Elsewhere = std::function<bool(const std::string& name)>;
// Those of the blocks, and the embedding and head, that a part of a model has not.
Elsewhere OutsideOf(const DecoderPart& part, const ModelConfig& config);

// Whether the folder has a tensor of the right (whole) shape and a float type for every parameter and, but for known
// harmless ones (rotary_emb.inv_freq, the head of tied embeddings, experts below num_experts of the
// parameters that other ranks hold) and those `elsewhere`, none besides. INVALID_ARGUMENT lists everything that is
// wrong.
absl::Status CheckParameters(const HfFolder& weights, const ModelConfig& config,
                             absl::Span<const NamedParameter> parameters,
                             const Elsewhere& elsewhere = nullptr);

// Each parameter's value and master from the piece of its tensor that is here, converted to their types; of parameters
// that CheckParameters passed. Reads no more than these pieces.
absl::Status CopyParameters(const HfFolder& weights, absl::Span<const NamedParameter> parameters);

// Both, one after the other.
absl::Status LoadParameters(const HfFolder& weights, const ModelConfig& config,
                            absl::Span<const NamedParameter> parameters,
                            const Elsewhere& elsewhere = nullptr);

// The decoder's parameters from a folder; the ones, and the parts of them, that live on this rank. Every rank decides
// for itself: ranks that train together must agree on the result.
absl::Status LoadWeights(const std::string& folder, Decoder& decoder);

}  // namespace cohort::runtime
