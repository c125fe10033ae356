// A model folder, loaded to generate from.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "comm/communicator.h"
#include "runtime/model/decoder.h"
#include "runtime/tokenizer/tokenizer.h"

namespace cohort::tools {

struct ServedModel {
  std::shared_ptr<const runtime::Tokenizer> tokenizer;
  std::unique_ptr<runtime::Decoder> decoder;
};

// Loads `folder` (config.json, tokenizer.json, weights) for inference on `device`. dtype: auto (bf16
// where the folder says bfloat16, else f32), bf16 or f32. Experts are divided over the ranks of `world`,
// of which each calls this.
absl::StatusOr<ServedModel> LoadServedModel(const std::string& folder, const std::string& dtype,
                                            runtime::Device& device,
                                            std::shared_ptr<comm::Communicator> world);

}  // namespace cohort::tools
