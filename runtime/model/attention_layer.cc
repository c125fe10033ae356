#include "runtime/model/attention_layer.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "comm/check.h"
#include "runtime/model/families.h"
#include "runtime/model/linear.h"

namespace cohort::runtime {

AttentionLayer::AttentionLayer(const ModelConfig& config, const std::string& prefix, Tensor rope,
                               const TensorGroup& tensor, ParameterGroup& group)
    : heads_(config.num_attention_heads / tensor.size()),
      kv_heads_(config.num_key_value_heads / tensor.size()),
      head_dim_(config.head_dim),
      eps_(config.rms_norm_eps),
      scale_(1 / std::sqrt(static_cast<double>(config.head_dim))),
      rope_(std::move(rope)) {
  const int64_t d = config.hidden_size, q = config.num_attention_heads * head_dim_,
                kv = config.num_key_value_heads * head_dim_;
  const auto matrix = [&](const char* name, int64_t out, int64_t in, double stddev, int split_dim) {
    return group.Add(absl::StrCat(prefix, "self_attn.", name, ".weight"), {out, in}, Init::kNormal, stddev,
                     true, PlacementIn(tensor), SplitOver(tensor, split_dim));
  };
  q_proj_ = matrix("q_proj", q, d, InitStddev(config), 0);
  k_proj_ = matrix("k_proj", kv, d, InitStddev(config), 0);
  v_proj_ = matrix("v_proj", kv, d, InitStddev(config), 0);
  o_proj_ = matrix("o_proj", d, q, ResidualInitStddev(config), 1);
  if (!config.qk_norm) return;
  q_norm_ = group.Add(absl::StrCat(prefix, "self_attn.q_norm.weight"), {head_dim_}, Init::kOnes, 0, false);
  k_norm_ = group.Add(absl::StrCat(prefix, "self_attn.k_norm.weight"), {head_dim_}, Init::kOnes, 0, false);
}

// raw, out [T, heads, C]; the norm is over each head.
void AttentionLayer::Normalize(const Parameter& weight, const Tensor& raw, const Tensor& out,
                               Tensor& rstd) const {
  Device& device = raw.device();
  const int64_t rows = raw.dim(0) * raw.dim(1);
  rstd = Tensor::Empty(device, {rows}, device.state_dtype());
  device.ops().RmsNorm(raw.View({rows, head_dim_}), weight.value, eps_, out.View({rows, head_dim_}), rstd);
}

void AttentionLayer::Project(const Tensor& x, const Tensor& positions, Tensor& q, Tensor& k, Tensor& v,
                             Saved* saved, const Meanwhile& meanwhile) const {
  const int64_t t = x.dim(0);
  q = Linear(x, *q_proj_).View({t, heads_, head_dim_});
  Call(meanwhile);
  k = Linear(x, *k_proj_).View({t, kv_heads_, head_dim_});
  v = Linear(x, *v_proj_).View({t, kv_heads_, head_dim_});
  Call(meanwhile);
  if (q_norm_ != nullptr) {
    const Tensor q_raw = q, k_raw = k;
    if (saved != nullptr) {
      q = Tensor::Empty(x.device(), q.shape(), x.dtype());
      k = Tensor::Empty(x.device(), k.shape(), x.dtype());
    }
    Tensor q_rstd, k_rstd;
    Normalize(*q_norm_, q_raw, q, q_rstd);
    Normalize(*k_norm_, k_raw, k, k_rstd);
    if (saved != nullptr) {
      saved->q_raw = q_raw, saved->k_raw = k_raw;
      saved->q_rstd = q_rstd, saved->k_rstd = k_rstd;
    }
  }
  Ops& ops = x.device().ops();
  ops.Rope(q, positions, rope_, /*inverse=*/false);
  ops.Rope(k, positions, rope_, /*inverse=*/false);
  if (saved != nullptr) saved->q = q, saved->k = k, saved->v = v;
}

absl::StatusOr<Tensor> AttentionLayer::Forward(const Tensor& x, const TokenBatch& batch, Saved* saved,
                                               const Meanwhile& meanwhile) const {
  Device& device = x.device();
  const int64_t t = batch.num_tokens();
  Tensor q, k, v, y, lse;
  Project(x, batch.positions, q, k, v, saved, meanwhile);
  if (batch.attention != nullptr) {
    COHORT_ASSIGN_OR_RETURN(
        y, batch.attention->Forward(q, k, v, scale_, saved == nullptr ? nullptr : &saved->core_saved));
  } else {
    y = Tensor::Empty(device, q.shape(), x.dtype());
    lse = Tensor::Empty(device, {heads_, t}, device.state_dtype());
    device.ops().Attention(q, k, v, batch.offsets, scale_, y, lse);
  }
  if (saved != nullptr) {
    saved->x = x, saved->positions = batch.positions, saved->offsets = batch.offsets;
    saved->y = y, saved->lse = lse, saved->core = batch.attention;
  }
  Call(meanwhile);
  return Linear(y.View({t, heads_ * head_dim_}), *o_proj_);
}

absl::StatusOr<Tensor> AttentionLayer::BackwardInput(const Tensor& dout, Saved& saved,
                                                     const Meanwhile& meanwhile) const {
  Device& device = dout.device();
  Ops& ops = device.ops();
  const int64_t t = saved.x.dim(0);
  saved.dout = dout;
  const Shape q_shape = {t, heads_, head_dim_}, kv_shape = {t, kv_heads_, head_dim_};
  const Tensor dy = Tensor::Empty(device, q_shape, dout.dtype());
  LinearInputGrad(dout, *o_proj_, dy.View({t, heads_ * head_dim_}));
  Call(meanwhile);
  saved.dq = Tensor::Empty(device, q_shape, dout.dtype());
  saved.dk = Tensor::Empty(device, kv_shape, dout.dtype());
  saved.dv = Tensor::Empty(device, kv_shape, dout.dtype());
  if (saved.core != nullptr) {
    COHORT_RETURN_IF_ERROR(saved.core->Backward(dy, *saved.core_saved, saved.dq, saved.dk, saved.dv));
    saved.core_saved = nullptr;
  } else {
    ops.AttentionGrad(dy, saved.q, saved.k, saved.v, saved.y, saved.lse, saved.offsets, scale_, saved.dq,
                      saved.dk, saved.dv);
  }
  Call(meanwhile);
  ops.Rope(saved.dq, saved.positions, rope_, /*inverse=*/true);
  ops.Rope(saved.dk, saved.positions, rope_, /*inverse=*/true);
  if (q_norm_ != nullptr) {
    const auto norm = [&](Parameter& weight, const Tensor& raw, const Tensor& rstd, const Tensor& gradient) {
      const Shape rows = {raw.dim(0) * raw.dim(1), head_dim_};
      const Tensor x = raw.View(rows), dy = gradient.View(rows);
      ops.RmsNormWeightGrad(dy, x, rstd, weight.grad);
      ops.RmsNormGrad(dy, x, weight.value, rstd, Tensor(), dy);
    };
    norm(*q_norm_, saved.q_raw, saved.q_rstd, saved.dq);
    norm(*k_norm_, saved.k_raw, saved.k_rstd, saved.dk);
  }
  saved.q = saved.k = saved.v = saved.lse = Tensor();
  saved.q_raw = saved.k_raw = saved.q_rstd = saved.k_rstd = Tensor();

  saved.dq = saved.dq.View({t, heads_ * head_dim_});
  saved.dk = saved.dk.View({t, kv_heads_ * head_dim_});
  saved.dv = saved.dv.View({t, kv_heads_ * head_dim_});
  const Tensor dx = Tensor::Empty(device, {t, dout.dim(1)}, dout.dtype());
  LinearInputGrad(saved.dq, *q_proj_, dx);
  Call(meanwhile);
  LinearInputGrad(saved.dk, *k_proj_, dx, /*accumulate=*/true);
  LinearInputGrad(saved.dv, *v_proj_, dx, /*accumulate=*/true);
  return dx;
}

void AttentionLayer::BackwardWeight(Saved& saved, const Meanwhile& meanwhile) const {
  LinearWeightGrad(saved.dout, saved.y.View(saved.dq.shape()), *o_proj_);
  Call(meanwhile);
  LinearWeightGrad(saved.dq, saved.x, *q_proj_);
  Call(meanwhile);
  LinearWeightGrad(saved.dk, saved.x, *k_proj_);
  LinearWeightGrad(saved.dv, saved.x, *v_proj_);
  saved = Saved();
}

Tensor AttentionLayer::ForwardPaged(const Tensor& x, const PagedBatch& batch, const KvPages& pages) const {
  Ops& ops = x.device().ops();
  const int64_t t = batch.tokens.size();
  Tensor q, k, v;
  Project(x, batch.positions, q, k, v, nullptr, {});
  ops.StoreKv(k, v, batch.slots, pages);
  const Tensor y = Tensor::Empty(x.device(), q.shape(), x.dtype());
  ops.PagedAttention(q, pages, batch.page_table, batch.query_offsets, batch.context_lengths, scale_, y);
  return Linear(y.View({t, heads_ * head_dim_}), *o_proj_);
}

}  // namespace cohort::runtime
