// The section `model` as the architecture it describes.
#include "runtime/config/config.h"
#include "runtime/model/families.h"

namespace cohort::runtime {

absl::StatusOr<ModelConfig> ModelConfigFrom(const cohort::v1::TrainConfig& config) {
  const cohort::v1::ModelSection& section = config.model();
  if (section.has_path()) return ModelConfig::Load(section.path());
  ModelConfig model;
  model.model_type = section.model_type();
  model.vocab_size = section.vocab_size();
  model.hidden_size = section.hidden_size();
  model.intermediate_size = section.intermediate_size();
  model.num_hidden_layers = section.num_hidden_layers();
  model.num_attention_heads = section.num_attention_heads();
  model.num_key_value_heads = section.num_key_value_heads();
  model.head_dim = section.head_dim();
  model.max_position_embeddings = section.max_position_embeddings();
  model.rope_theta = section.rope_theta();
  model.rms_norm_eps = section.rms_norm_eps();
  model.tie_word_embeddings = section.tie_word_embeddings();
  model.initializer_range = section.initializer_range();
  if (const Family* family = FindFamily(model.model_type)) model.qk_norm = family->qk_norm;
  model.num_experts = section.num_experts();
  model.num_experts_per_tok = section.num_experts_per_tok();
  model.moe_intermediate_size = section.moe_intermediate_size();
  model.shared_expert_intermediate_size = section.shared_expert_intermediate_size();
  if (section.has_router()) {
    const cohort::v1::RouterSection& router = section.router();
    model.router.gate = router.gate();
    model.router.normalize_weights = router.normalize_weights();
    model.router.aux_loss_coef = router.aux_loss_coef();
    model.router.z_loss_coef = router.z_loss_coef();
    model.router.bias_update_rate = router.bias_update_rate();
    model.router.capacity_factor = router.capacity_factor();
  }
  return model;
}

}  // namespace cohort::runtime
