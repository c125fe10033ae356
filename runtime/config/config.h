// From a YAML file to a configuration that can be run: read, completed, checked.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cohort/v1/config.pb.h"
#include "runtime/model/model_config.h"

namespace cohort::runtime {

// What a configuration's defaults depend on beyond itself.
struct ConfigFacts {
  int ranks = 1;               // of the job
  int ranks_on_host = 1;       // of them, on this host
  int cores = 1;               // of this host
  bool fast_bf16 = false;      // whether its processor multiplies bf16 fast (Device::fast_bf16)
  int64_t tokenizer_size = 0;  // ids of the tokenizer; 0: not known yet
};

// The file, then the overrides ("train.steps=100") in their order; checked against the schema key by key,
// nothing else. Errors: see ParseYaml in yaml_message.h.
absl::StatusOr<cohort::v1::TrainConfig> LoadConfig(const std::string& file,
                                                   const std::vector<std::string>& overrides = {});

// data.tokenizer, or its default: the tokenizer.json in the first training folder. Empty where there is no
// training data.
std::string TokenizerPath(const cohort::v1::TrainConfig& config);

// Sets every unset field that has a default, as the comments of config.proto say. Of `model`, nothing where
// model.path is given. Looks at the training folders for validation splits.
void ApplyDefaults(cohort::v1::TrainConfig& config, const ConfigFacts& facts);

// The architecture: of model.path's config.json, or what the section says. Not validated but where it is
// read.
absl::StatusOr<ModelConfig> ModelConfigFrom(const cohort::v1::TrainConfig& config);

// Whether a completed configuration can be run: ranges, known names, what of a model must divide what (what the ranks
// must be divided by is seen by who divides them). INVALID_ARGUMENT
// names the key, its value and what is allowed.
absl::Status ValidateConfig(const cohort::v1::TrainConfig& config, const ModelConfig& model,
                            const ConfigFacts& facts);

// The last three together.
struct ResolvedConfig {
  cohort::v1::TrainConfig config;
  ModelConfig model;
};
absl::StatusOr<ResolvedConfig> ResolveConfig(cohort::v1::TrainConfig config, const ConfigFacts& facts);

}  // namespace cohort::runtime
