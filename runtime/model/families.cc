#include "runtime/model/families.h"

#include <cmath>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "comm/check.h"

namespace cohort::runtime {
namespace {

const ExpertNames& MlpExperts() {
  static const auto& names = *new ExpertNames{"mlp.", "gate_proj", "up_proj", "down_proj"};
  return names;
}

const std::vector<Family>& Table() {
  static const auto& table = *new std::vector<Family>{
      {.model_type = "llama",
       .architecture = "LlamaForCausalLM",
       .qk_norm = false,
       .default_rope_theta = 1e4,
       .default_head_dim = 0,
       .default_kv_heads = true,
       .sparse = false,
       .num_experts_field = "",
       .own_moe_width = false,
       .choose_normalize = false,
       .expert_names = {}},
      {.model_type = "mistral",
       .architecture = "MistralForCausalLM",
       .qk_norm = false,
       .default_rope_theta = 1e4,
       .default_head_dim = 0,
       .default_kv_heads = false,
       .sparse = false,
       .num_experts_field = "",
       .own_moe_width = false,
       .choose_normalize = false,
       .expert_names = {}},
      {.model_type = "qwen3",
       .architecture = "Qwen3ForCausalLM",
       .qk_norm = true,
       .default_rope_theta = 1e4,
       .default_head_dim = 128,
       .default_kv_heads = false,
       .sparse = false,
       .num_experts_field = "",
       .own_moe_width = false,
       .choose_normalize = false,
       .expert_names = {}},
      {.model_type = "mixtral",
       .architecture = "MixtralForCausalLM",
       .qk_norm = false,
       .default_rope_theta = 1e6,
       .default_head_dim = 0,
       .default_kv_heads = false,
       .sparse = true,
       .num_experts_field = "num_local_experts",
       .own_moe_width = false,
       .choose_normalize = false,
       .expert_names = {"block_sparse_moe.", "w1", "w3", "w2"}},
      {.model_type = "qwen3_moe",
       .architecture = "Qwen3MoeForCausalLM",
       .qk_norm = true,
       .default_rope_theta = 1e4,
       .default_head_dim = 0,
       .default_kv_heads = false,
       .sparse = true,
       .num_experts_field = "num_experts",
       .own_moe_width = true,
       .choose_normalize = true,
       .expert_names = MlpExperts()},
  };
  return table;
}

}  // namespace

std::string ExpertNames::Router(const std::string& prefix) const {
  return absl::StrCat(prefix, module, "gate.weight");
}

std::string ExpertNames::RouterBias(const std::string& prefix) const {
  return absl::StrCat(prefix, module, "gate.e_score_correction_bias");
}

std::string ExpertNames::Expert(const std::string& prefix, int64_t expert, Projection projection) const {
  const std::string& name = projection == Projection::kGate ? gate
                            : projection == Projection::kUp ? up
                                                            : down;
  return absl::StrCat(prefix, module, "experts.", expert, ".", name, ".weight");
}

std::string ExpertNames::SharedPrefix(const std::string& prefix) const {
  return absl::StrCat(prefix, module, "shared_expert.");
}

absl::Span<const Family> Families() { return Table(); }

const Family* FindFamily(const std::string& model_type) {
  for (const Family& family : Table()) {
    if (family.model_type == model_type) return &family;
  }
  return nullptr;
}

std::string FamilyNames() {
  return absl::StrJoin(
      Table(), ", ", [](std::string* out, const Family& family) { absl::StrAppend(out, family.model_type); });
}

const Family& FamilyOf(const ModelConfig& config) {
  const Family* family = FindFamily(config.model_type);
  COHORT_CHECK(family != nullptr, "model type \"%s\" of a config that was not validated",
               config.model_type.c_str());
  return *family;
}

double InitStddev(const ModelConfig& config) { return config.initializer_range; }

double ResidualInitStddev(const ModelConfig& config) {
  return config.initializer_range / std::sqrt(2.0 * static_cast<double>(config.num_hidden_layers));
}

}  // namespace cohort::runtime
