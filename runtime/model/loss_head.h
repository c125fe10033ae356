// The end of the decoder: final norm, head, cross-entropy. Logits exist for one chunk of tokens at a time,
// and their gradient is used up before the next chunk.
#pragma once

#include "runtime/model/block.h"
#include "runtime/model/model_config.h"

namespace cohort::runtime {

class LossHead {
 public:
  // Adds model.norm.weight and, where `tied` is null, lm_head.weight to `group` (allocated later). `tied`:
  // the embedding, which is then the head's matrix too.
  LossHead(const ModelConfig& config, DataType compute, Parameter* tied, ParameterGroup& group);

  // Adds the batch's loss and predicted tokens to `sums`.
  void Evaluate(Stream stream, const Tensor& targets, LossSums& sums) const;
  // The same, with the gradients of the loss times `grad_scale`: the parameters' accumulated, the stream's
  // returned.
  Tensor ForwardBackward(Stream stream, const Tensor& targets, double grad_scale, LossSums& sums) const;
  // state [T, V].
  Tensor Logits(Stream stream) const;

 private:
  // Tokens whose logits are made at a time, of T.
  int64_t ChunkRows(int64_t tokens) const;

  int64_t vocabulary_;
  double eps_;
  DataType compute_;
  Parameter *norm_, *head_;
};

}  // namespace cohort::runtime
