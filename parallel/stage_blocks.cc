#include "parallel/stage_blocks.h"

#include <cstdint>

#include "comm/check.h"
#include "parallel/pipeline/balance.h"

namespace cohort::parallel {

absl::StatusOr<std::vector<int>> StageBlocks(const runtime::ModelConfig& config, int stages) {
  const auto width = static_cast<double>(config.hidden_size), head_dim = static_cast<double>(config.head_dim);
  const double attention =
      width * head_dim * static_cast<double>(2 * config.num_attention_heads + 2 * config.num_key_value_heads);
  std::vector<double> blocks;
  for (int layer = 0; layer < config.num_hidden_layers; ++layer) {
    const int64_t hidden = config.IsSparse(layer)
                               ? config.moe_intermediate_size * config.num_experts_per_tok +
                                     config.shared_expert_intermediate_size
                               : config.intermediate_size;
    blocks.push_back(attention + 3 * width * static_cast<double>(hidden));
  }
  COHORT_ASSIGN_OR_RETURN(
      const pipeline::StageSplit split,
      pipeline::BalanceStages(blocks, 0, width * static_cast<double>(config.vocab_size), stages));
  return split.first_block;
}

runtime::DecoderPart StagePart(const std::vector<int>& first_block, int stage) {
  const auto s = static_cast<size_t>(stage);
  return {.first_block = first_block[s],
          .last_block = first_block[s + 1],
          .embedding = stage == 0,
          .head = s + 2 == first_block.size()};
}

}  // namespace cohort::parallel
