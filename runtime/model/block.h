// A decoder block: x + attention(norm(x)), then that + feed_forward(norm(that)).
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "runtime/model/attention_layer.h"
#include "runtime/model/feed_forward.h"

namespace cohort::runtime {

// The residual stream between blocks: base + delta [T, D], this rank's rows where a tensor group divides the tokens.
// The sum is left to the next norm, which makes it
// in the same pass. delta may be undefined (zero) and is overwritten by who adds it.
struct Stream {
  Tensor base, delta;

  // Makes the sum the base and returns its norm [T, D]; rstd [T].
  Tensor AddAndNormalize(const Parameter& weight, double eps, Tensor& rstd);
};

// The rows of the stream, for a batch.
struct StreamRows {
  RowRange rows{};
  Tensor offsets;  // kI32 [S+1]: the rows of each sequence
};

class Block {
 public:
  struct Saved {
    Tensor x;  // the block's input [T, D]
    AttentionLayer::Saved attention;
    Tensor rstd1, x_mid, rstd2;
    std::unique_ptr<FeedForward::Saved> feed_forward;
  };

  // Adds its parameters to `group` (allocated later). `factory` makes the feed-forward where the block is
  // sparse.
  static absl::StatusOr<std::unique_ptr<Block>> Create(const ModelConfig& config, int layer, Tensor rope,
                                                       Device& device, DataType compute,
                                                       const FeedForwardFactory& factory, TensorGroup& tensor,
                                                       ParameterGroup& group);

  // saved null: nothing is kept but *input, where not null: the block's input, from which Recompute runs it
  // again.
  absl::Status Forward(Stream& stream, const TokenBatch& batch, const StreamRows& rows,
                       const LossScale& scale, Saved* saved, Tensor* input, LossSums* sums) const;
  absl::Status Recompute(const Tensor& input, const TokenBatch& batch, const StreamRows& rows,
                         const LossScale& scale, Saved& saved) const;
  // Gradient of the block's input from that of its output, which stays as it is until BackwardWeight.
  // Accumulates the gradients of the norms; those of the matrices are BackwardWeight's.
  absl::StatusOr<Tensor> BackwardInput(const Tensor& dy, Saved& saved) const;
  void BackwardWeight(Saved& saved) const;

  absl::Status ForwardPaged(Stream& stream, const PagedBatch& batch, const KvPages& pages) const;

  // Whether the feed-forward is a mixture of experts, with a row of expert_load.
  bool sparse() const { return sparse_; }
  FeedForward& feed_forward() { return *feed_forward_; }

 private:
  Block(const ModelConfig& config, const std::string& prefix, Tensor rope, TensorGroup& tensor,
        ParameterGroup& group);

  double eps_;
  Parameter *norm1_, *norm2_;
  AttentionLayer attention_;
  std::unique_ptr<FeedForward> feed_forward_;
  bool sparse_ = false;
};

}  // namespace cohort::runtime
