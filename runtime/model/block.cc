#include "runtime/model/block.h"

#include "absl/strings/str_cat.h"
#include "comm/check.h"
#include "runtime/model/mlp.h"
#include "runtime/ops/ops.h"

namespace cohort::runtime {

Tensor Stream::AddAndNormalize(const Parameter& weight, double eps, Tensor& rstd) {
  Device& device = base.device();
  const Tensor y = Tensor::Empty(device, base.shape(), base.dtype());
  rstd = Tensor::Empty(device, {base.dim(0)}, device.state_dtype());
  if (delta.defined()) {
    device.ops().AddRmsNorm(delta, base, weight.value, eps, delta, y, rstd);
    base = std::move(delta);
    delta = Tensor();
  } else {
    device.ops().RmsNorm(base, weight.value, eps, y, rstd);
  }
  return y;
}

Block::Block(const ModelConfig& config, const std::string& prefix, Tensor rope, TensorGroup& tensor,
             ParameterGroup& group)
    : eps_(config.rms_norm_eps),
      norm1_(group.Add(absl::StrCat(prefix, "input_layernorm.weight"), {config.hidden_size}, Init::kOnes, 0,
                       false)),
      norm2_(group.Add(absl::StrCat(prefix, "post_attention_layernorm.weight"), {config.hidden_size},
                       Init::kOnes, 0, false)),
      attention_(config, prefix, std::move(rope), tensor, group) {}

absl::StatusOr<std::unique_ptr<Block>> Block::Create(const ModelConfig& config, int layer, Tensor rope,
                                                     Device& device, DataType compute,
                                                     const FeedForwardFactory& factory, TensorGroup& tensor,
                                                     ParameterGroup& group) {
  const std::string prefix = absl::StrCat("model.layers.", layer, ".");
  std::unique_ptr<Block> block(new Block(config, prefix, std::move(rope), tensor, group));
  block->sparse_ = config.IsSparse(layer);
  if (block->sparse_) {
    COHORT_ASSIGN_OR_RETURN(block->feed_forward_, factory(config, layer, prefix, device, compute, group));
  } else {
    block->feed_forward_ =
        std::make_unique<Mlp>(config, absl::StrCat(prefix, "mlp."), config.intermediate_size, tensor, group);
  }
  return block;
}

absl::Status Block::Forward(Stream& stream, const TokenBatch& batch, const StreamRows& rows,
                            const LossScale& scale, Saved* saved, Tensor* input, LossSums* sums) const {
  Tensor rstd1, rstd2;
  const Tensor normed1 = stream.AddAndNormalize(*norm1_, eps_, rstd1);
  if (input != nullptr) *input = stream.base;
  if (saved != nullptr) saved->x = stream.base, saved->rstd1 = rstd1;
  COHORT_ASSIGN_OR_RETURN(stream.delta,
                          attention_.Forward(normed1, batch, saved == nullptr ? nullptr : &saved->attention));

  const Tensor normed2 = stream.AddAndNormalize(*norm2_, eps_, rstd2);
  if (saved != nullptr) saved->x_mid = stream.base, saved->rstd2 = rstd2;
  COHORT_ASSIGN_OR_RETURN(stream.delta,
                          feed_forward_->Forward({.x = normed2,
                                                  .total_rows = batch.num_tokens(),
                                                  .batch = &batch,
                                                  .offsets = rows.offsets,
                                                  .scale = scale},
                                                 saved == nullptr ? nullptr : &saved->feed_forward, sums));
  return absl::OkStatus();
}

absl::Status Block::Recompute(const Tensor& input, const TokenBatch& batch, const StreamRows& rows,
                              const LossScale& scale, Saved& saved) const {
  Stream stream{input, Tensor()};
  return Forward(stream, batch, rows, scale, &saved, nullptr, nullptr);
}

absl::StatusOr<Tensor> Block::BackwardInput(const Tensor& dy, Saved& saved) const {
  Ops& ops = dy.device().ops();
  // Through a norm, in place, adding what went past it. The norm's weight comes first: it needs what is
  // overwritten.
  const auto norm = [&](const Tensor& gradient, const Tensor& x, Parameter& weight, const Tensor& rstd,
                        const Tensor& past) {
    ops.RmsNormWeightGrad(gradient, x, rstd, weight.grad);
    ops.RmsNormGrad(gradient, x, weight.value, rstd, past, gradient);
  };
  COHORT_ASSIGN_OR_RETURN(const Tensor dx_mid, feed_forward_->BackwardInput(dy, *saved.feed_forward));
  norm(dx_mid, saved.x_mid, *norm2_, saved.rstd2, dy);
  COHORT_ASSIGN_OR_RETURN(const Tensor dx, attention_.BackwardInput(dx_mid, saved.attention));
  norm(dx, saved.x, *norm1_, saved.rstd1, dx_mid);
  saved.x = saved.x_mid = saved.rstd1 = saved.rstd2 = Tensor();
  return dx;
}

void Block::BackwardWeight(Saved& saved) const {
  feed_forward_->BackwardWeight(*saved.feed_forward);
  attention_.BackwardWeight(saved.attention);
  saved = Saved();
}

absl::Status Block::ForwardPaged(Stream& stream, const PagedBatch& batch, const KvPages& pages) const {
  Tensor rstd;
  COHORT_ASSIGN_OR_RETURN(stream.delta,
                          attention_.ForwardPaged(stream.AddAndNormalize(*norm1_, eps_, rstd), batch, pages));
  COHORT_ASSIGN_OR_RETURN(
      stream.delta, feed_forward_->Forward(
                        {.x = stream.AddAndNormalize(*norm2_, eps_, rstd), .total_rows = batch.tokens.size()},
                        nullptr, nullptr));
  return absl::OkStatus();
}

}  // namespace cohort::runtime
