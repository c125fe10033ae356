// What makes a folder of weights one that Hugging Face tools open, and such a folder made of a checkpoint or of another
// one.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "runtime/checkpoint/hf_folder.h"
#include "runtime/checkpoint/policy.h"
#include "runtime/model/model_config.h"

namespace cohort::runtime {

// The type's name in config.json: "float32".
const char* TorchName(DataType dtype);

// A tokenizer.json, and what lies beside it (tokenizer_config.json, ..), into `folder`; "": nothing.
absl::Status CopyTokenizer(const std::string& tokenizer, const std::string& folder);

struct ExportOptions {
  std::optional<DataType> dtype;  // of all weights; nothing: what they have
  int64_t shard_bytes = checkpoint_policy::kShardBytes;
  bool overwrite = false;
};

// From `weights`, a checkpoint of any ranks or a folder from elsewhere, to the folder `to`, which appears whole or not at
// all: config.json, the weights of these parameters, and the tokenizer where there is one. Weights in f32 are the
// masters where a checkpoint has them besides. INVALID_ARGUMENT lists what does not fit the model, ALREADY_EXISTS where
// `to` exists.
absl::Status ExportFolder(const HfFolder& weights, const ModelConfig& config,
                          absl::Span<const NamedParameter> parameters, const std::string& to,
                          const ExportOptions& options);

}  // namespace cohort::runtime
