// What a model computes on: packed tokens of some sequences, for training or through a paged cache.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "runtime/model/spread.h"
#include "runtime/ops/ops.h"
#include "runtime/tensor.h"

namespace cohort::runtime {

// Ranks that hold tokens of the same sequences of a batch.
class SequenceGroup {
 public:
  virtual ~SequenceGroup() = default;
  // In place, element by element over the ranks; the same bits everywhere. All ranks make the same calls.
  virtual absl::Status Sum(const Tensor& x) = 0;
  // One of them, which counts what all compute alike.
  virtual bool counts() const = 0;
  // kI32 [S]: tokens of each whole sequence.
  virtual const Tensor& lengths() const = 0;
};

// What a layer calls between its matrix products where rows of another half of the batch are on their way:
// who waits for them can do with them what needs little time. Empty: nothing.
using Meanwhile = std::function<void()>;
inline void Call(const Meanwhile& meanwhile) {
  if (meanwhile) meanwhile();
}

// Training: S sequences, one after another, or of each the tokens that are here, in their order. T tokens.
struct TokenBatch {
  Tensor tokens;                      // kI32 [T]
  Tensor targets;                     // kI32 [T]; negative: not predicted
  Tensor positions;                   // kI32 [T]: in the whole sequence
  Tensor offsets;                     // kI32 [S+1]
  std::vector<int32_t> host_offsets;  // the same on the host
  // Where other ranks have tokens of the same sequences: who computes attention, and who adds up what is
  // counted by sequence. Null: the sequences are whole.
  std::shared_ptr<AttentionCore> attention = nullptr;
  std::shared_ptr<SequenceGroup> sequences = nullptr;
  // Two batches whose tokens are this one's, one after another: each is computed while the other's rows
  // travel between the ranks of a tensor group, which divides each of them. The second may go on with the
  // last sequence of the first. Empty: the batch is computed at once.
  std::vector<TokenBatch> halves = {};
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
  std::vector<double> block_aux_losses;  // the same, by mixture-of-experts block: a term each
  int64_t tokens = 0;                    // predicted tokens
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
