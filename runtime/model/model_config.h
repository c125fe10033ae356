// A model's architecture, as Hugging Face's config.json says it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace cohort::runtime {

struct RopeScaling {
  std::string type = "default";  // default, linear, llama3
  double factor = 1;
  double low_freq_factor = 1, high_freq_factor = 4;  // llama3
  int64_t original_max_position = 8192;              // llama3
};

// How tokens choose experts. The gate and its losses: see moe/.
struct RouterConfig {
  std::string gate = "softmax";   // a row of moe/'s table of gates, which alone knows the names
  bool normalize_weights = true;  // HF norm_topk_prob
  double aux_loss_coef = 0;       // HF router_aux_loss_coef
  double z_loss_coef = 0;
  double bias_update_rate = 0;
  double capacity_factor = 0;  // 0: dropless
};

struct ModelConfig {
  std::string model_type = "llama";  // a row of the family table (families.h)
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;  // of dense feed-forwards
  int64_t num_hidden_layers = 0;
  int64_t num_attention_heads = 0;
  int64_t num_key_value_heads = 0;
  int64_t head_dim = 0;
  int64_t max_position_embeddings = 0;
  double rope_theta = 10000;
  RopeScaling rope_scaling;
  double rms_norm_eps = 1e-5;
  bool tie_word_embeddings = false;
  bool qk_norm = false;  // RMSNorm over each head of q and k (Qwen3)
  double initializer_range = 0.02;

  // Mixture of experts; num_experts 0: dense.
  int64_t num_experts = 0;
  int64_t num_experts_per_tok = 0;
  int64_t moe_intermediate_size = 0;
  int64_t shared_expert_intermediate_size = 0;  // 0: none
  int64_t decoder_sparse_step = 1;              // block i is sparse where (i + 1) % step == 0 ...
  std::vector<int64_t> mlp_only_layers;         // ... and i is not one of these
  RouterConfig router;

  std::optional<int64_t> bos_token_id;
  std::vector<int64_t> eos_token_ids;
  std::string torch_dtype = "float32";  // of the weights on disk

  bool IsSparse(int layer) const;
  int64_t NumParameters() const;
  // Parameters that one token's forward multiplies by (experts: the chosen ones), the embedding lookup
  // excluded.
  int64_t NumActiveParameters() const;
  // Model FLOPs of one token's forward and backward at this sequence length: 6 x active parameters plus
  // attention (causal: half of the full product), as usual for MFU (Chowdhery et al., 2022, appendix B).
  double TrainFlopsPerToken(int64_t sequence_length) const;

  // INVALID_ARGUMENT names the field and what is wrong with it; unknown model types list the known ones.
  static absl::StatusOr<ModelConfig> FromJson(const std::string& text, const std::string& file);
  static absl::StatusOr<ModelConfig> Load(const std::string& folder);  // folder/config.json
  std::string ToJson() const;
  absl::Status Validate() const;
};

}  // namespace cohort::runtime
