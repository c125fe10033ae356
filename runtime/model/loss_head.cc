#include "runtime/model/loss_head.h"

#include <algorithm>

#include "comm/check.h"
#include "runtime/model/families.h"
#include "runtime/model/linear.h"
#include "runtime/model/policy.h"

namespace cohort::runtime {

LossHead::LossHead(const ModelConfig& config, DataType compute, Parameter* tied, TensorGroup& tensor,
                   ParameterGroup& group)
    : tensor_(tensor),
      vocabulary_(RowsOf(config.vocab_size, tensor.rank(), tensor.size())),
      widest_((config.vocab_size + tensor.size() - 1) / tensor.size()),
      eps_(config.rms_norm_eps),
      compute_(compute),
      norm_(group.Add("model.norm.weight", {config.hidden_size}, Init::kOnes, 0, false)),
      head_(tied != nullptr
                ? tied
                : group.Add("lm_head.weight", {config.vocab_size, config.hidden_size}, Init::kNormal,
                            InitStddev(config), true, PlacementIn(tensor), SplitOver(tensor, 0))) {}

int64_t LossHead::ChunkRows(int64_t tokens) const {
  const auto row_bytes =
      static_cast<size_t>(widest_) * SizeOf(compute_);  // so that all parts make the same chunks
  const auto rows = static_cast<int64_t>(model_policy::kLogitBytes / row_bytes);
  const int64_t most = std::max(rows / model_policy::kLogitRows, int64_t{1}) * model_policy::kLogitRows;
  return std::min(most, tokens);
}

absl::Status LossHead::Losses(const Tensor& logits, const Tensor& targets, double grad_scale,
                              const Tensor& losses, bool gradient) const {
  Device& device = logits.device();
  Ops& ops = device.ops();
  if (tensor_.size() == 1) {
    ops.CrossEntropy(logits, targets, grad_scale, losses, gradient ? logits : Tensor());
    return absl::OkStatus();
  }
  const int64_t rows = logits.dim(0);
  const auto vector = [&] { return Tensor::Empty(device, {rows}, device.state_dtype()); };
  const Tensor max = vector(), lse = vector();
  const Tensor sums = Tensor::Empty(device, {2, rows}, device.state_dtype());
  const Tensor sum = sums.Row(0), target_logit = sums.Row(1);
  ops.VocabularyStats(logits, targets, vocabulary_.begin, max, sum, target_logit);
  const Tensor global_max = max.Clone();
  COHORT_RETURN_IF_ERROR(tensor_.Max(global_max));
  ops.VocabularyRescale(max, global_max, sum);
  COHORT_RETURN_IF_ERROR(tensor_.Sum(sums));
  ops.VocabularyLoss(targets, global_max, sum, target_logit, lse, losses);
  if (gradient) ops.VocabularyGrad(logits, targets, vocabulary_.begin, lse, grad_scale, logits);
  return absl::OkStatus();
}

// Every part has the losses of all tokens; each adds those of its own rows.
void LossHead::AddLosses(const Tensor& losses, const Tensor& targets, LossSums& sums) const {
  const RowRange rows = RowsOf(targets.size(), tensor_.rank(), tensor_.size());
  for (const double loss : ToHost(losses.Slice(rows.begin, rows.end))) sums.loss += loss;
  for (const double target : ToHost(targets.Slice(rows.begin, rows.end))) sums.tokens += target >= 0 ? 1 : 0;
}

absl::Status LossHead::Evaluate(Stream stream, const Tensor& targets, LossSums& sums) const {
  Device& device = stream.base.device();
  Tensor rstd;
  COHORT_ASSIGN_OR_RETURN(const Tensor normed,
                          tensor_.GatherRows(stream.AddAndNormalize(*norm_, eps_, rstd), targets.size()));
  const int64_t tokens = normed.dim(0), chunk = ChunkRows(tokens);
  const Tensor losses = Tensor::Empty(device, {tokens}, device.state_dtype());
  const Tensor buffer = Tensor::Empty(device, {chunk, vocabulary_.size()}, compute_);
  for (int64_t begin = 0; begin < tokens; begin += chunk) {
    const int64_t end = std::min(begin + chunk, tokens);
    const Tensor logits = buffer.Slice(0, end - begin);
    device.ops().MatMul(normed.Slice(begin, end), head_->value, logits, {.transpose_b = true});
    COHORT_RETURN_IF_ERROR(
        Losses(logits, targets.Slice(begin, end), 0, losses.Slice(begin, end), /*gradient=*/false));
  }
  AddLosses(losses, targets, sums);
  return absl::OkStatus();
}

absl::StatusOr<Tensor> LossHead::ForwardBackward(Stream stream, const Tensor& targets, double grad_scale,
                                                 LossSums& sums) const {
  Device& device = stream.base.device();
  Ops& ops = device.ops();
  Tensor rstd;
  const Tensor mine = stream.AddAndNormalize(*norm_, eps_, rstd);
  COHORT_ASSIGN_OR_RETURN(const Tensor normed, tensor_.GatherRows(mine, targets.size()));
  const int64_t tokens = normed.dim(0), chunk = ChunkRows(tokens);
  const Tensor losses = Tensor::Empty(device, {tokens}, device.state_dtype());
  {
    const Tensor buffer = Tensor::Empty(device, {chunk, vocabulary_.size()}, compute_);
    for (int64_t begin = 0; begin < tokens; begin += chunk) {
      const int64_t end = std::min(begin + chunk, tokens);
      const Tensor x = normed.Slice(begin, end), logits = buffer.Slice(0, end - begin);
      ops.MatMul(x, head_->value, logits, {.transpose_b = true});
      COHORT_RETURN_IF_ERROR(
          Losses(logits, targets.Slice(begin, end), grad_scale, losses.Slice(begin, end), /*gradient=*/true));
      LinearWeightGrad(logits, x, *head_);
      LinearInputGrad(logits, *head_, x);  // over the chunk's normed rows, which nothing needs any more
    }
  }
  AddLosses(losses, targets, sums);
  COHORT_ASSIGN_OR_RETURN(const Tensor gradient, tensor_.ReduceScatterRows(normed));
  ops.RmsNormWeightGrad(gradient, stream.base, rstd, norm_->grad);
  ops.RmsNormGrad(gradient, stream.base, norm_->value, rstd, Tensor(), gradient);
  return gradient;
}

Tensor LossHead::Logits(Stream stream) const {
  COHORT_CHECK(tensor_.size() == 1, "logits of a vocabulary in %d parts", tensor_.size());
  Device& device = stream.base.device();
  Tensor rstd;
  const Tensor normed = stream.AddAndNormalize(*norm_, eps_, rstd);
  const Tensor logits = Tensor::Empty(device, {normed.dim(0), vocabulary_.size()}, device.state_dtype());
  device.ops().MatMul(normed, head_->value, logits, {.transpose_b = true});
  return logits;
}

}  // namespace cohort::runtime
