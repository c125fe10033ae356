#include "runtime/model/loss_head.h"

#include <algorithm>

#include "runtime/model/families.h"
#include "runtime/model/linear.h"
#include "runtime/model/policy.h"

namespace cohort::runtime {
namespace {

void AddLosses(const Tensor& losses, const Tensor& targets, LossSums& sums) {
  for (double loss : ToHost(losses)) sums.loss += loss;
  for (double target : ToHost(targets)) sums.tokens += target >= 0 ? 1 : 0;
}

}  // namespace

LossHead::LossHead(const ModelConfig& config, DataType compute, Parameter* tied, ParameterGroup& group)
    : vocabulary_(config.vocab_size),
      eps_(config.rms_norm_eps),
      compute_(compute),
      norm_(group.Add("model.norm.weight", {config.hidden_size}, Init::kOnes, 0, false)),
      head_(tied != nullptr ? tied
                            : group.Add("lm_head.weight", {config.vocab_size, config.hidden_size},
                                        Init::kNormal, InitStddev(config), true)) {}

int64_t LossHead::ChunkRows(int64_t tokens) const {
  const auto row_bytes = static_cast<size_t>(vocabulary_) * SizeOf(compute_);
  const auto rows = static_cast<int64_t>(model_policy::kLogitBytes / row_bytes);
  const int64_t most = std::max(rows / model_policy::kLogitRows, int64_t{1}) * model_policy::kLogitRows;
  return std::min(most, tokens);
}

void LossHead::Evaluate(Stream stream, const Tensor& targets, LossSums& sums) const {
  Device& device = stream.base.device();
  Tensor rstd;
  const Tensor normed = stream.AddAndNormalize(*norm_, eps_, rstd);
  const int64_t tokens = normed.dim(0), chunk = ChunkRows(tokens);
  const Tensor losses = Tensor::Empty(device, {tokens}, device.state_dtype());
  const Tensor buffer = Tensor::Empty(device, {chunk, vocabulary_}, compute_);
  for (int64_t begin = 0; begin < tokens; begin += chunk) {
    const int64_t end = std::min(begin + chunk, tokens);
    const Tensor logits = buffer.Slice(0, end - begin);
    device.ops().MatMul(normed.Slice(begin, end), head_->value, logits, {.transpose_b = true});
    device.ops().CrossEntropy(logits, targets.Slice(begin, end), 0, losses.Slice(begin, end), Tensor());
  }
  AddLosses(losses, targets, sums);
}

Tensor LossHead::ForwardBackward(Stream stream, const Tensor& targets, double grad_scale,
                                 LossSums& sums) const {
  Device& device = stream.base.device();
  Ops& ops = device.ops();
  Tensor rstd;
  const Tensor normed = stream.AddAndNormalize(*norm_, eps_, rstd);
  const int64_t tokens = normed.dim(0), chunk = ChunkRows(tokens);
  const Tensor losses = Tensor::Empty(device, {tokens}, device.state_dtype());
  {
    const Tensor buffer = Tensor::Empty(device, {chunk, vocabulary_}, compute_);
    for (int64_t begin = 0; begin < tokens; begin += chunk) {
      const int64_t end = std::min(begin + chunk, tokens);
      const Tensor x = normed.Slice(begin, end), logits = buffer.Slice(0, end - begin);
      ops.MatMul(x, head_->value, logits, {.transpose_b = true});
      ops.CrossEntropy(logits, targets.Slice(begin, end), grad_scale, losses.Slice(begin, end), logits);
      LinearWeightGrad(logits, x, *head_);
      LinearInputGrad(logits, *head_, x);  // over the chunk's normed rows, which nothing needs any more
    }
  }
  AddLosses(losses, targets, sums);
  ops.RmsNormWeightGrad(normed, stream.base, rstd, norm_->grad);
  ops.RmsNormGrad(normed, stream.base, norm_->value, rstd, Tensor(), normed);
  return normed;
}

Tensor LossHead::Logits(Stream stream) const {
  Device& device = stream.base.device();
  Tensor rstd;
  const Tensor normed = stream.AddAndNormalize(*norm_, eps_, rstd);
  const Tensor logits = Tensor::Empty(device, {normed.dim(0), vocabulary_}, device.state_dtype());
  device.ops().MatMul(normed, head_->value, logits, {.transpose_b = true});
  return logits;
}

}  // namespace cohort::runtime
