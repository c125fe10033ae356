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

// A run of a model's layers: a stage of a pipeline, or all of them.
struct DecoderPart {
  int first_block = 0;
  int last_block = -1;  // past the last one; -1: the model's last
  bool embedding = true, head = true;
  // Of tied embeddings: the head's matrix is a copy, in a group of its own before the head's. Needed where the embedding
  // is elsewhere, possible where it is here. Whoever asks for it adds up the gradients of the two and keeps them alike.
  bool head_copy = false;
};

struct DecoderOptions {
  DataType compute = DataType::kF32;  // kBF16, kF32; kF64 on the reference device
  bool trainable = true;              // false: no masters, no gradients
  bool recompute = false;             // keep only each block's input; run its forward again in the backward
  // Bytes that it may take: parameters, and where trainable their masters, gradients and AdamW's two moments.
  // More is RESOURCE_EXHAUSTED, before anything is allocated. 0: what the device has free.
  int64_t memory_limit = 0;
  // false: the parameters' buckets stay without flat tensors, and memory_limit is not looked at. Who asked for it makes
  // them, and renews them around each use (ParameterHooks); Initialize is theirs too, group by group.
  bool allocate = true;
  // false: made to be looked at. Without the tables of positions, nothing is computed with it.
  bool computes = true;
  // Feed-forward of sparse blocks. Required where the config has experts.
  FeedForwardFactory experts = {};
  // Which layers are here.
  DecoderPart part = {};
  // The ranks over which matrices and, between them, tokens are divided; null: everything is here. Its size divides the
  // heads and the key/value heads. Inference from a paged cache then gives no logits.
  std::shared_ptr<TensorGroup> tensor = nullptr;
};

// Called around the use of each parameter group, so that a strategy can gather, prefetch, reduce and free.
// Group indices are those of Decoder::groups(): the embedding where it is here, the blocks, the head where it is here,
// and before that, where it has one, its copy of the embedding.
// An error ends the call that it came up in and is returned.
//
// A forward that is kept: before_forward(g), after_forward(g) for the embedding and each block; then the head, whose
// forward and backward are one: before_forward(head), before_backward(head), after_backward(head). Its backward:
// before_backward(g), after_backward(g) for the blocks, last first (recomputation happens between them), and
// the embedding. In two halves: BackwardInput calls before_backward(g) and after_backward_input(g) of each block, and
// BackwardWeight its after_backward(g); the embedding belongs to BackwardInput whole. Tied: the head's use of the
// embedding begins with before_backward(0), called just before
// before_backward(head), and group 0 is in use until its after_backward, the last call. Forward only:
// before_forward(g), after_forward(g) in order, and where tied group 0 once more around the head. A copy of the embedding
// is used as group 0 would be by the head, and its after_backward follows the head's.
struct ParameterHooks {
  std::function<absl::Status(int group)> before_forward;
  std::function<absl::Status(int group)> after_forward;
  std::function<absl::Status(int group)> before_backward;
  // The values are not needed any more for this micro-batch, the gradients are still to come.
  std::function<absl::Status(int group)> after_backward_input;
  // All gradients of the group are in for this micro-batch.
  std::function<absl::Status(int group)> after_backward;
};

// Not thread-safe: one thread drives a model. Tied embeddings: one parameter (model.embed_tokens.weight),
// whose group's after_backward comes last, or two of that name (DecoderPart::head_copy).
class Decoder {
 public:
  // What a forward keeps for its backward.
  class Saved {
   public:
    virtual ~Saved() = default;
  };
  virtual ~Decoder() = default;

  static absl::StatusOr<std::unique_ptr<Decoder>> Create(const ModelConfig& config, Device& device,
                                                         DecoderOptions options);

  virtual const ModelConfig& config() const = 0;
  virtual Device& device() const = 0;
  virtual DataType compute() const = 0;
  virtual const DecoderPart& part() const = 0;
  // In forward order: embedding, blocks, copy of the embedding, final norm and head, what of them is here.
  virtual std::vector<ParameterGroup>& groups() = 0;
  // The parameter of this name here, or null (it does not exist, or lives on another rank). Of two the embedding.
  virtual Parameter* Find(const std::string& name) = 0;
  virtual void Initialize(uint64_t seed) = 0;
  virtual void SetHooks(ParameterHooks hooks) = 0;

  // The three calls with a TokenBatch check it: INVALID_ARGUMENT names a token or target outside the
  // vocabulary, a position past max_position_embeddings, or offsets that do not fit.
  //
  // One micro-batch: the loss and, accumulated into each Parameter::grad, its gradients divided by `scale`.
  virtual absl::StatusOr<LossSums> ForwardBackward(const TokenBatch& batch, const LossScale& scale) = 0;
  // The loss alone. Of a part without the head: what Forward returns is its to pass on.
  virtual absl::StatusOr<LossSums> Evaluate(const TokenBatch& batch) = 0;

  // The same in pieces, for a pipeline. x: what the part before returned, compute type [t, D]; undefined where the
  // embedding is here. Returns what the next part takes; with the head here nothing, but the loss is in `sums`, and
  // where `saved` is not null the head's gradients are accumulated. saved null: nothing is kept.
  virtual absl::StatusOr<Tensor> Forward(const TokenBatch& batch, const LossScale& scale, const Tensor& x,
                                         std::unique_ptr<Saved>* saved, LossSums* sums) = 0;
  // From the gradient of what Forward returned (undefined with the head here) to that of x (undefined where the
  // embedding is here). Backward is BackwardInput and BackwardWeight, block by block, which keeps less. After
  // BackwardInput `saved` lives until BackwardWeight, which accumulates the gradients of the matrices.
  virtual absl::StatusOr<Tensor> Backward(const Tensor& dy, Saved& saved) = 0;
  virtual absl::StatusOr<Tensor> BackwardInput(const Tensor& dy, Saved& saved) = 0;
  virtual absl::Status BackwardWeight(Saved& saved) = 0;
  // Whole-sequence logits, state type [T, V]. For tests and scoring of short texts.
  virtual absl::StatusOr<Tensor> Logits(const TokenBatch& batch) = 0;

  // Who plans the batch checks its tokens, positions and pages: wrong ones abort.
  // Stores the new keys and values and returns the logits of the wanted rows, kF32 [R, V] (kF64 on the
  // reference).
  virtual absl::StatusOr<Tensor> ForwardPaged(const PagedBatch& batch, KvCache& cache) = 0;
  // Whether ForwardPaged does nothing but enqueue operations on its device: no other rank and no hook takes part, so
  // that Device::Record can take it.
  virtual bool paged_is_recordable() const = 0;
  // An empty cache of `pages` pages of `page_size` tokens a block.
  virtual KvCache MakeCache(int64_t pages, int64_t page_size) = 0;
  // After an optimizer step, with the global batch's load: one row a sparse block of this part (see
  // FeedForward::UpdateBalance).
  virtual void UpdateBalance(const std::vector<std::vector<int64_t>>& load) = 0;
};

}  // namespace cohort::runtime
