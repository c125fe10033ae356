#include "runtime/config/config.h"

#include <utility>

#include "comm/check.h"
#include "runtime/config/yaml_message.h"

namespace cohort::runtime {

absl::StatusOr<cohort::v1::TrainConfig> LoadConfig(const std::string& file,
                                                   const std::vector<std::string>& overrides) {
  cohort::v1::TrainConfig config;
  COHORT_RETURN_IF_ERROR(LoadYaml(file, overrides, config));
  return config;
}

absl::StatusOr<ResolvedConfig> ResolveConfig(cohort::v1::TrainConfig config, const ConfigFacts& facts) {
  ApplyDefaults(config, facts);
  COHORT_ASSIGN_OR_RETURN(ModelConfig model, ModelConfigFrom(config));
  COHORT_RETURN_IF_ERROR(ValidateConfig(config, model, facts));
  return ResolvedConfig{std::move(config), std::move(model)};
}

}  // namespace cohort::runtime
