// The model families that config.json can name, a row each. A new family that differs by names or defaults
// only is one new row in families.cc.
#pragma once

#include <cstdint>
#include <string>

#include "absl/types/span.h"
#include "runtime/model/model_config.h"

namespace cohort::runtime {

enum class Projection : uint8_t { kGate, kUp, kDown };

// Hugging Face's names of a mixture of experts. `prefix` is the block's: "model.layers.3.".
struct ExpertNames {
  std::string module;          // of the feed-forward inside the block: "mlp."
  std::string gate, up, down;  // of an expert's projections

  std::string Router(const std::string& prefix) const;  // weight [E, D]
  std::string RouterBias(
      const std::string& prefix) const;  // buffer [E]: loss-free balancing (ours, as DeepSeek-V3's)
  std::string Expert(const std::string& prefix, int64_t expert, Projection projection) const;
  // The module of the shared expert: "model.layers.3.mlp.shared_expert.", a dense Mlp's names below it.
  std::string SharedPrefix(const std::string& prefix) const;
};

struct Family {
  std::string model_type;    // config.json's model_type
  std::string architecture;  // config.json's architectures[0]
  bool qk_norm;
  double default_rope_theta;
  int64_t default_head_dim;       // 0: hidden_size / num_attention_heads
  bool default_kv_heads;          // num_key_value_heads may be missing: then as many as attention heads
  bool sparse;                    // has experts
  std::string num_experts_field;  // its name of num_experts
  bool own_moe_width;             // false: the experts' width is intermediate_size, and every block is sparse
  bool choose_normalize;          // false: the chosen experts' weights are always normalised to 1
  ExpertNames expert_names;       // of sparse families
};

absl::Span<const Family> Families();
// Null where there is no such row.
const Family* FindFamily(const std::string& model_type);
// "llama, mistral, ...", for messages.
std::string FamilyNames();
// The family of a validated config.
const Family& FamilyOf(const ModelConfig& config);

// Standard deviations of the initial weights: initializer_range, and for the projections that write into the
// residual stream that over sqrt(2 blocks) (Radford et al., 2019, section 2.3), so that the stream's variance
// does not grow with depth.
double InitStddev(const ModelConfig& config);
double ResidualInitStddev(const ModelConfig& config);

}  // namespace cohort::runtime
