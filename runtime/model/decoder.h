// The decoder: embedding, blocks (attention, feed-forward), final norm, head. One class for every family;
// what differs between families is data (ModelConfig) and names (families.h).
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/model/batch.h"
#include "runtime/model/feed_forward.h"
#include "runtime/model/model_config.h"
#include "runtime/model/parameter.h"

namespace cohort::runtime {

struct DecoderOptions {
  DataType compute = DataType::kF32;  // kBF16, kF32; kF64 on the reference device
  bool trainable = true;              // false: no masters, no gradients
  bool recompute = false;             // keep only each block's input; run its forward again in the backward
  // Bytes that it may take: parameters, and where trainable their masters, gradients and AdamW's two moments.
  // More is RESOURCE_EXHAUSTED, before anything is allocated. 0: what the device has free.
  int64_t memory_limit = 0;
  // Feed-forward of sparse blocks. Required where the config has experts.
  FeedForwardFactory experts = {};
};

// Called around the use of each parameter group, so that a strategy can gather, prefetch, reduce and free.
// Group indices are those of Decoder::groups(): embedding 0, block i at i + 1, head last. An error ends the
// call that it came up in and is returned.
//
// ForwardBackward: before_forward(g), after_forward(g) for the embedding and each block; then the head, whose
// forward and backward are one: before_forward(head), before_backward(head), after_backward(head); then
// before_backward(g), after_backward(g) for the blocks, last first (recomputation happens between them), and
// the embedding. Tied: the head's use of the embedding begins with before_backward(0), called just before
// before_backward(head), and group 0 is in use until its after_backward, the last call. Forward only:
// before_forward(g), after_forward(g) in order, and where tied group 0 once more around the head.
struct ParameterHooks {
  std::function<absl::Status(int group)> before_forward;
  std::function<absl::Status(int group)> after_forward;
  std::function<absl::Status(int group)> before_backward;
  // All gradients of the group are in for this micro-batch.
  std::function<absl::Status(int group)> after_backward;
};

// Not thread-safe: one thread drives a model. Tied embeddings: one parameter (model.embed_tokens.weight),
// whose group's after_backward comes last.
class Decoder {
 public:
  virtual ~Decoder() = default;

  static absl::StatusOr<std::unique_ptr<Decoder>> Create(const ModelConfig& config, Device& device,
                                                         DecoderOptions options);

  virtual const ModelConfig& config() const = 0;
  virtual Device& device() const = 0;
  virtual DataType compute() const = 0;
  // In forward order: embedding, blocks, final norm and head.
  virtual std::vector<ParameterGroup>& groups() = 0;
  // The parameter of this name here, or null (it does not exist, or lives on another rank).
  virtual Parameter* Find(const std::string& name) = 0;
  virtual void Initialize(uint64_t seed) = 0;
  virtual void SetHooks(ParameterHooks hooks) = 0;

  // The three calls with a TokenBatch check it: INVALID_ARGUMENT names a token or target outside the
  // vocabulary, a position past max_position_embeddings, or offsets that do not fit.
  //
  // One micro-batch: the loss and, accumulated into each Parameter::grad, its gradients divided by `scale`.
  virtual absl::StatusOr<LossSums> ForwardBackward(const TokenBatch& batch, const LossScale& scale) = 0;
  // The loss alone.
  virtual absl::StatusOr<LossSums> Evaluate(const TokenBatch& batch) = 0;
  // Whole-sequence logits, state type [T, V]. For tests and scoring of short texts.
  virtual absl::StatusOr<Tensor> Logits(const TokenBatch& batch) = 0;

  // Who plans the batch checks its tokens, positions and pages: wrong ones abort.
  // Stores the new keys and values and returns the logits of the wanted rows, kF32 [R, V] (kF64 on the
  // reference).
  virtual absl::StatusOr<Tensor> ForwardPaged(const PagedBatch& batch, KvCache& cache) = 0;
  // An empty cache of `pages` pages of `page_size` tokens a block.
  virtual KvCache MakeCache(int64_t pages, int64_t page_size) = 0;
  // After an optimizer step, with the global batch's load: one row a sparse block (see
  // FeedForward::UpdateBalance).
  virtual void UpdateBalance(const std::vector<std::vector<int64_t>>& load) = 0;
};

}  // namespace cohort::runtime
