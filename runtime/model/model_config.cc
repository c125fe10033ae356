#include "runtime/model/model_config.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "runtime/model/families.h"
#include "runtime/model/policy.h"

namespace cohort::runtime {
namespace {

struct IntRange {
  const char* name;
  int64_t value, low, high;
};

absl::Status Bad(absl::string_view field, absl::string_view problem) {
  return absl::InvalidArgumentError(absl::StrCat("\"", field, "\" ", problem));
}

absl::Status CheckRanges(std::initializer_list<IntRange> ranges) {
  for (const IntRange& range : ranges) {
    if (range.value < range.low || range.value > range.high) {
      return Bad(range.name,
                 absl::StrCat("must be from ", range.low, " to ", range.high, ", it is ", range.value));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckRope(const ModelConfig& config) {
  const RopeScaling& scaling = config.rope_scaling;
  if (!(config.rope_theta > 0))
    return Bad("rope_theta", absl::StrCat("must be above 0, it is ", config.rope_theta));
  if (scaling.type == "default") return absl::OkStatus();
  if (scaling.type != "linear" && scaling.type != "llama3") {
    return Bad("rope_scaling.rope_type",
               absl::StrCat("must be default, linear or llama3, it is \"", scaling.type, "\""));
  }
  if (!(scaling.factor > 0)) return Bad("rope_scaling.factor", "must be above 0");
  if (scaling.type == "linear") return absl::OkStatus();
  if (!(scaling.low_freq_factor > 0) || !(scaling.high_freq_factor > scaling.low_freq_factor)) {
    return Bad("rope_scaling.high_freq_factor", "must be above low_freq_factor, and that above 0");
  }
  if (scaling.original_max_position < 1) {
    return Bad("rope_scaling.original_max_position_embeddings", "must be above 0");
  }
  return absl::OkStatus();
}

absl::Status CheckExperts(const ModelConfig& config, const Family& family) {
  if (!family.sparse) {
    if (config.num_experts == 0) return absl::OkStatus();
    return Bad("num_experts", absl::StrCat("must be 0: ", config.model_type, " models have no experts"));
  }
  absl::Status status = CheckRanges({
      {"num_experts", config.num_experts, 1, model_policy::kMaxExperts},
      {"num_experts_per_tok", config.num_experts_per_tok, 1, config.num_experts},
      {"moe_intermediate_size", config.moe_intermediate_size, 1, model_policy::kMaxWidth},
      {"shared_expert_intermediate_size", config.shared_expert_intermediate_size, 0, model_policy::kMaxWidth},
      {"decoder_sparse_step", config.decoder_sparse_step, 1, model_policy::kMaxBlocks},
  });
  if (!status.ok()) return status;
  if (!family.own_moe_width && (config.moe_intermediate_size != config.intermediate_size ||
                                config.decoder_sparse_step != 1 || !config.mlp_only_layers.empty())) {
    return Bad("model_type", absl::StrCat(config.model_type,
                                          " has only sparse blocks, with experts of width "
                                          "intermediate_size; use qwen3_moe for others"));
  }
  if (!family.choose_normalize && !config.router.normalize_weights) {
    return Bad("norm_topk_prob", absl::StrCat("must be true in ", config.model_type, " models"));
  }
  for (int64_t layer : config.mlp_only_layers) {
    if (layer < 0 || layer >= config.num_hidden_layers) {
      return Bad("mlp_only_layers", absl::StrCat("names block ", layer, " of ", config.num_hidden_layers));
    }
  }
  const RouterConfig& router = config.router;
  if (!(router.aux_loss_coef >= 0)) return Bad("router_aux_loss_coef", "must not be negative");
  if (!(router.z_loss_coef >= 0)) return Bad("router.z_loss_coef", "must not be negative");
  if (!(router.bias_update_rate >= 0)) return Bad("router.bias_update_rate", "must not be negative");
  if (!(router.capacity_factor >= 0)) return Bad("router.capacity_factor", "must not be negative");
  return absl::OkStatus();
}

}  // namespace

absl::Status ModelConfig::Validate() const {
  const Family* family = FindFamily(model_type);
  if (family == nullptr) {
    return Bad("model_type",
               absl::StrCat("is \"", model_type, "\", which is not supported. Known: ", FamilyNames()));
  }
  absl::Status status = CheckRanges({
      {"vocab_size", vocab_size, 1, model_policy::kMaxVocabulary},
      {"hidden_size", hidden_size, 1, model_policy::kMaxWidth},
      {"intermediate_size", intermediate_size, 1, model_policy::kMaxWidth},
      {"num_hidden_layers", num_hidden_layers, 1, model_policy::kMaxBlocks},
      {"num_attention_heads", num_attention_heads, 1, model_policy::kMaxWidth},
      {"num_key_value_heads", num_key_value_heads, 1, num_attention_heads},
      {"head_dim", head_dim, 2, model_policy::kMaxWidth},
      {"max_position_embeddings", max_position_embeddings, 1, model_policy::kMaxPositions},
  });
  if (!status.ok()) return status;
  if (num_attention_heads % num_key_value_heads != 0) {
    return Bad("num_key_value_heads", absl::StrCat("must divide num_attention_heads (", num_attention_heads,
                                                   "), it is ", num_key_value_heads));
  }
  if (head_dim % 2 != 0) return Bad("head_dim", absl::StrCat("must be even, it is ", head_dim));
  if (!(rms_norm_eps > 0)) return Bad("rms_norm_eps", absl::StrCat("must be above 0, it is ", rms_norm_eps));
  if (!(initializer_range > 0)) return Bad("initializer_range", "must be above 0");
  if (qk_norm != family->qk_norm) {
    return Bad("qk_norm",
               absl::StrCat("must be ", family->qk_norm ? "true" : "false", " in ", model_type, " models"));
  }
  status = CheckRope(*this);
  if (!status.ok()) return status;
  return CheckExperts(*this, *family);
}

bool ModelConfig::IsSparse(int layer) const {
  return num_experts > 0 && (layer + 1) % decoder_sparse_step == 0 &&
         std::find(mlp_only_layers.begin(), mlp_only_layers.end(), layer) == mlp_only_layers.end();
}

namespace {

// Parameters of all blocks, with `experts` routed experts in each sparse one.
int64_t BlockParameters(const ModelConfig& config, int64_t experts) {
  const int64_t width = config.hidden_size;
  const int64_t attention =
      2 * width * config.head_dim * (config.num_attention_heads + config.num_key_value_heads) +
      (config.qk_norm ? 2 * config.head_dim : 0);
  const int64_t dense = 3 * width * config.intermediate_size;
  const int64_t sparse = experts * 3 * width * config.moe_intermediate_size + width * config.num_experts +
                         3 * width * config.shared_expert_intermediate_size;
  int64_t sum = 0;
  for (int layer = 0; layer < config.num_hidden_layers; ++layer) {
    sum += attention + 2 * width + (config.IsSparse(layer) ? sparse : dense);
  }
  return sum;
}

}  // namespace

int64_t ModelConfig::NumParameters() const {
  const int64_t embedding = vocab_size * hidden_size;
  return BlockParameters(*this, num_experts) + hidden_size + (tie_word_embeddings ? 1 : 2) * embedding;
}

int64_t ModelConfig::NumActiveParameters() const {
  return BlockParameters(*this, num_experts_per_tok) + hidden_size + vocab_size * hidden_size;
}

double ModelConfig::TrainFlopsPerToken(int64_t sequence_length) const {
  // Scores and their product with the values: 2 x 2 S H C a token forward, three times that with the
  // backward; half of it where causal.
  const double attention = 0.5 * 12.0 * static_cast<double>(num_hidden_layers) *
                           static_cast<double>(num_attention_heads * head_dim) *
                           static_cast<double>(sequence_length);
  return 6.0 * static_cast<double>(NumActiveParameters()) + attention;
}

}  // namespace cohort::runtime
