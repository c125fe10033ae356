// What a model computes on: packed tokens of some sequences, for training or through a paged cache.
#pragma once

#include <cstdint>
#include <vector>

#include "runtime/ops/ops.h"
#include "runtime/tensor.h"

namespace cohort::runtime {

// Training: S whole sequences, one after another. T tokens.
struct TokenBatch {
  Tensor tokens;                      // kI32 [T]
  Tensor targets;                     // kI32 [T]; negative: not predicted
  Tensor positions;                   // kI32 [T]
  Tensor offsets;                     // kI32 [S+1]
  std::vector<int32_t> host_offsets;  // the same on the host
  int64_t num_tokens() const { return tokens.size(); }
  int64_t num_sequences() const { return static_cast<int64_t>(host_offsets.size()) - 1; }
};

// What the losses of one step are divided by: counts over the whole global batch, so that every arrangement
// of ranks and micro-batches adds up to the same loss and the same gradients.
struct LossScale {
  double tokens = 1;     // predicted tokens in the global batch
  double sequences = 1;  // sequences in the global batch
};

// Sums over one micro-batch, to be added up over micro-batches and ranks.
struct LossSums {
  double loss = 0;      // sum of -log p over predicted tokens, nats
  double aux_loss = 0;  // weighted auxiliary losses (balance, z), already divided by LossScale
  int64_t tokens = 0;   // predicted tokens
  // Tokens that chose each expert, by mixture-of-experts block: [blocks][experts]. Global expert indices;
  // counts the tokens of this rank's own batch.
  std::vector<std::vector<int64_t>> expert_load;
  int64_t dropped = 0;  // choices that found no room (fixed capacity)
};

// Inference: new tokens of S sequences whose earlier keys and values are in pages. T tokens in all, R rows
// wanted.
struct PagedBatch {
  Tensor tokens;           // kI32 [T]
  Tensor positions;        // kI32 [T]
  Tensor slots;            // kI32 [T]: where each token's key and value go (page * page_size + place)
  Tensor query_offsets;    // kI32 [S+1]
  Tensor context_lengths;  // kI32 [S]: keys of the sequence, the new ones included
  Tensor page_table;       // kI32 [S, max pages]
  Tensor logit_rows;       // kI32 [R]: tokens whose logits are wanted
};

// Pages of every block of a model.
struct KvCache {
  std::vector<KvPages> blocks;
};

}  // namespace cohort::runtime
