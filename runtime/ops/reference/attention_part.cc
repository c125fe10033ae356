// Attention to a part of the keys, by its definition: each query against each key of its sequence, whose
// position decides. f64, no tiles, nothing shared with the CPU.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "runtime/ops/check_shapes.h"
#include "runtime/ops/reference/reference_ops.h"

namespace cohort::runtime {
namespace {

constexpr double kNoKey = -std::numeric_limits<double>::infinity();

double KeyDot(const double* a, const double* b, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

}  // namespace

void ReferenceOps::AttentionPart(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& q_offsets,
                                 const Tensor& k_offsets, const Tensor& q_positions,
                                 const Tensor& k_positions, double scale, const Tensor& y,
                                 const Tensor& lse) {
  const int64_t tokens = q.dim(0), heads = q.dim(1), groups = k.dim(1), width = q.dim(2);
  const int64_t sequences = q_offsets.dim(0) - 1;
  const int32_t* q_starts = CheckOffsets("AttentionPart", q_offsets, sequences, tokens);
  const int32_t* k_starts = CheckOffsets("AttentionPart", k_offsets, sequences, k.dim(0));
  const int32_t *q_at = q_positions.data<int32_t>(), *k_at = k_positions.data<int32_t>();
  const double *qs = q.data<double>(), *ks = k.data<double>(), *vs = v.data<double>();
  double *ys = y.data<double>(), *lses = lse.data<double>();
  for (int64_t s = 0; s < sequences; ++s) {
    for (int64_t t = q_starts[s]; t < q_starts[s + 1]; ++t) {
      for (int64_t h = 0; h < heads; ++h) {
        const int64_t g = h / (heads / groups);
        const double* query = qs + (t * heads + h) * width;
        double* out = ys + (t * heads + h) * width;
        std::fill(out, out + width, 0.0);
        double top = kNoKey, sum = 0;
        for (int64_t j = k_starts[s]; j < k_starts[s + 1]; ++j) {
          if (k_at[j] > q_at[t]) continue;
          top = std::max(top, scale * KeyDot(query, ks + (j * groups + g) * width, width));
        }
        for (int64_t j = k_starts[s]; j < k_starts[s + 1]; ++j) {
          if (k_at[j] > q_at[t]) continue;
          const double p = std::exp(scale * KeyDot(query, ks + (j * groups + g) * width, width) - top);
          sum += p;
          for (int64_t c = 0; c < width; ++c) out[c] += p * vs[(j * groups + g) * width + c];
        }
        lses[h * tokens + t] = sum == 0 ? kNoKey : top + std::log(sum);
        for (int64_t c = 0; c < width && sum != 0; ++c) out[c] /= sum;
      }
    }
  }
}

void ReferenceOps::MergeAttention(const Tensor& y_part, const Tensor& lse_part, const Tensor& y,
                                  const Tensor& lse) {
  const int64_t tokens = y.dim(0), heads = y.dim(1), width = y.dim(2);
  CheckSameShape("MergeAttention", y_part, y);
  CheckSameShape("MergeAttention", lse_part, lse);
  CheckShape("MergeAttention", lse, {heads, tokens});
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t h = 0; h < heads; ++h) {
      const double theirs = lse_part.data<double>()[h * tokens + t];
      double& ours = lse.data<double>()[h * tokens + t];
      const double top = std::max(theirs, ours);
      if (top == kNoKey) continue;  // nobody saw a key: both outputs are 0
      const double sum = std::exp(theirs - top) + std::exp(ours - top);
      const double part_weight = std::exp(theirs - top) / sum, weight = std::exp(ours - top) / sum;
      const double* part = y_part.data<double>() + (t * heads + h) * width;
      double* out = y.data<double>() + (t * heads + h) * width;
      for (int64_t c = 0; c < width; ++c) out[c] = part_weight * part[c] + weight * out[c];
      ours = top + std::log(sum);
    }
  }
}

void ReferenceOps::AttentionDelta(const Tensor& dy, const Tensor& y, const Tensor& delta) {
  const int64_t tokens = dy.dim(0), heads = dy.dim(1), width = dy.dim(2);
  CheckSameShape("AttentionDelta", dy, y);
  CheckShape("AttentionDelta", delta, {heads, tokens});
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t h = 0; h < heads; ++h) {
      const int64_t at = (t * heads + h) * width;
      delta.data<double>()[h * tokens + t] = KeyDot(dy.data<double>() + at, y.data<double>() + at, width);
    }
  }
}

void ReferenceOps::AttentionPartGrad(const Tensor& dy, const Tensor& q, const Tensor& k, const Tensor& v,
                                     const Tensor& lse, const Tensor& delta, const Tensor& q_offsets,
                                     const Tensor& k_offsets, const Tensor& q_positions,
                                     const Tensor& k_positions, double scale, const Tensor& dq,
                                     const Tensor& dk, const Tensor& dv) {
  const int64_t tokens = q.dim(0), heads = q.dim(1), groups = k.dim(1), width = q.dim(2);
  const int64_t sequences = q_offsets.dim(0) - 1;
  const int32_t* q_starts = CheckOffsets("AttentionPartGrad", q_offsets, sequences, tokens);
  const int32_t* k_starts = CheckOffsets("AttentionPartGrad", k_offsets, sequences, k.dim(0));
  const int32_t *q_at = q_positions.data<int32_t>(), *k_at = k_positions.data<int32_t>();
  const double *dys = dy.data<double>(), *qs = q.data<double>(), *ks = k.data<double>(),
               *vs = v.data<double>();
  double *dqs = dq.data<double>(), *dks = dk.data<double>(), *dvs = dv.data<double>();
  for (int64_t s = 0; s < sequences; ++s) {
    for (int64_t t = q_starts[s]; t < q_starts[s + 1]; ++t) {
      for (int64_t h = 0; h < heads; ++h) {
        const int64_t g = h / (heads / groups), at = (t * heads + h) * width;
        const double drift =
            delta.data<double>()[h * tokens + t];  // sum of p_j dp_j over the keys of all parts
        for (int64_t j = k_starts[s]; j < k_starts[s + 1]; ++j) {
          if (k_at[j] > q_at[t]) continue;
          const int64_t key = (j * groups + g) * width;
          const double score = scale * KeyDot(qs + at, ks + key, width);
          const double p = std::exp(score - lse.data<double>()[h * tokens + t]);
          const double ds = scale * p * (KeyDot(dys + at, vs + key, width) - drift);
          for (int64_t c = 0; c < width; ++c) {
            dqs[at + c] += ds * ks[key + c];
            dks[key + c] += ds * qs[at + c];
            dvs[key + c] += p * dys[at + c];
          }
        }
      }
    }
  }
}

}  // namespace cohort::runtime
