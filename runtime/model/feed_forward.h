// The feed-forward half of a decoder block: a dense SwiGLU here, a mixture of experts in the room `moe`.
#pragma once

#include <functional>
#include <memory>

#include "absl/status/statusor.h"
#include "runtime/model/batch.h"
#include "runtime/model/model_config.h"
#include "runtime/model/parameter.h"

namespace cohort::runtime {

// What a feed-forward computes on, and what the auxiliary losses of a gate need besides.
struct FeedForwardInput {
  Tensor x;                           // float [T, D]
  const TokenBatch* batch = nullptr;  // training: whose tokens these are; null in inference
  Tensor offsets = {};                // training: kI32 [S+1], the rows of x that belong to each sequence
  LossScale scale = {};
  Meanwhile meanwhile = {};  // in a divided one
};

class FeedForward {
 public:
  // What the forward keeps for the backward.
  class Saved {
   public:
    virtual ~Saved() = default;
  };

  virtual ~FeedForward() = default;

  // Where a tensor group divides the tokens: true: it takes the rows of all ranks and makes a summand of
  // their outputs from its part of the matrices; false: it takes this rank's rows and makes their outputs.
  virtual bool divided() const = 0;
  // Whether Forward, where nothing is kept and no sums are made, does nothing but enqueue operations on its device: it
  // neither waits for another rank nor reads results on the host.
  virtual bool only_enqueues() const = 0;
  // y [T, D]. `saved` null: inference, nothing is kept. `sums`, where not null, gets aux_loss, dropped, and
  // one row of expert_load and of block_aux_losses appended by a mixture of experts. Fails where
  // communication fails. In a group of ranks that share experts every rank must call it, even with T = 0. y
  // is the caller's to overwrite; x stays as it is until BackwardWeight.
  virtual absl::StatusOr<Tensor> Forward(const FeedForwardInput& input, std::unique_ptr<Saved>* saved,
                                         LossSums* sums) = 0;
  // dx [T, D] of dy [T, D], the auxiliary losses' gradient included. Keeps in `saved` what BackwardWeight
  // needs. dx is the caller's to overwrite; dy stays as it is until BackwardWeight.
  virtual absl::StatusOr<Tensor> BackwardInput(const Tensor& dy, Saved& saved,
                                               const Meanwhile& meanwhile) = 0;
  // Accumulates the parameters' gradients. After BackwardInput; may come later (a pipeline delays it).
  virtual void BackwardWeight(Saved& saved, const Meanwhile& meanwhile) = 0;
  // Once an optimizer step, after it: `load` is this block's row of expert_load over the whole global batch.
  // A gate with loss-free balancing moves its bias; others do nothing.
  virtual void UpdateBalance(const std::vector<int64_t>& load) {}
};

// Makes the feed-forward of block `layer` and adds its parameters to `group` (allocated later). `prefix` is
// the block's: "model.layers.3.".
using FeedForwardFactory = std::function<absl::StatusOr<std::unique_ptr<FeedForward>>(
    const ModelConfig& config, int layer, const std::string& prefix, Device& device, DataType compute,
    ParameterGroup& group)>;

}  // namespace cohort::runtime
