#include "parallel/sequence/hybrid_costs.h"

#include "parallel/sequence/attention_time.h"

namespace cohort::parallel {

HybridCosts CostsOf(const runtime::ModelConfig& config, DataType compute, const HybridLinks& links) {
  const auto layers = static_cast<double>(config.num_hidden_layers),
             width = static_cast<double>(config.head_dim);
  const double bytes = layers * 2 * static_cast<double>(config.num_key_value_heads) * width *
                       (2 * static_cast<double>(SizeOf(compute)) + static_cast<double>(sizeof(float)));
  HybridCosts costs;
  costs.token = config.TrainFlopsPerToken(0);
  costs.pair = layers * static_cast<double>(config.num_attention_heads) * width *
               (kForwardFlopsPerElement + kBackwardFlopsPerElement);
  costs.moved_token = bytes * links.flops_per_byte;
  costs.near_token = bytes * links.near_flops_per_byte;
  costs.host_ranks = links.host_ranks;
  return costs;
}

}  // namespace cohort::parallel
