// The end of the decoder: final norm, head, cross-entropy. Logits exist for one chunk of tokens at a time,
// and their gradient is used up before the next chunk. Where a tensor group divides the vocabulary, each part has the
// logits of its rows of the head's matrix for all T tokens, and only the log of the softmax's denominator and the
// gradients of the parts' inputs travel (Shoeybi et al., 2019, section 3).
#pragma once

#include "runtime/model/block.h"
#include "runtime/model/model_config.h"

namespace cohort::runtime {

class LossHead {
 public:
  // Adds model.norm.weight and, where `tied` is null, lm_head.weight to `group` (allocated later). `tied`:
  // the embedding, which is then the head's matrix too. The vocabulary is divided over `tensor`, which outlives this.
  LossHead(const ModelConfig& config, DataType compute, Parameter* tied, TensorGroup& tensor,
           ParameterGroup& group);

  // The stream has this rank's rows [t, D] of T; targets kI32 [T]. Errors are those of communication.
  //
  // Adds this rank's part of the batch's loss and its predicted tokens to `sums`: over the tensor group they add up to
  // the batch's.
  absl::Status Evaluate(Stream stream, const Tensor& targets, LossSums& sums) const;
  // The same, with the gradients of the loss times `grad_scale`: the parameters' accumulated, the stream's
  // returned, [t, D].
  absl::StatusOr<Tensor> ForwardBackward(Stream stream, const Tensor& targets, double grad_scale,
                                         LossSums& sums) const;
  // state [T, V]; with the whole vocabulary here.
  Tensor Logits(Stream stream) const;

 private:
  // Tokens whose logits are made at a time, of T.
  int64_t ChunkRows(int64_t tokens) const;
  // Losses of the tokens of one chunk, and, where defined, the gradient of its logits in place.
  absl::Status Losses(const Tensor& logits, const Tensor& targets, double grad_scale, const Tensor& losses,
                      bool gradient) const;
  void AddLosses(const Tensor& losses, const Tensor& targets, LossSums& sums) const;

  TensorGroup& tensor_;
  RowRange vocabulary_;  // of the head's matrix, here
  int64_t widest_ = 0;   // rows of the largest part
  double eps_;
  DataType compute_;
  Parameter *norm_, *head_;
};

}  // namespace cohort::runtime
