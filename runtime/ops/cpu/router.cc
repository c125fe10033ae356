// The router's losses and its capacity on the CPU. Rows are as short as there are experts and the work is
// small beside the router's product, so it runs on one thread, a row at a time.
#include <algorithm>
#include <cmath>
#include <vector>

#include "runtime/ops/capacity.h"
#include "runtime/ops/check_shapes.h"
#include "runtime/ops/cpu/cpu_ops.h"

namespace cohort::runtime {

void CpuOps::BalanceLoss(const Tensor& probs, const Tensor& indices, const Tensor& offsets, double grad_scale,
                         const Tensor& losses, const Tensor& dprobs) {
  const int64_t experts = probs.dim(1), k = indices.dim(1), sequences = losses.dim(0);
  const int32_t* begin = CheckOffsets("BalanceLoss", offsets, sequences, probs.dim(0));
  CheckShape("BalanceLoss", indices, {probs.dim(0), k});
  if (dprobs.defined()) CheckSameShape("BalanceLoss", probs, dprobs);
  std::vector<int32_t> counts(experts);
  std::vector<double> sums(experts);
  std::vector<float> grads(experts);
  for (int64_t s = 0; s < sequences; ++s) {
    const int64_t length = begin[s + 1] - begin[s];
    losses.data<float>()[s] = 0;
    if (length == 0) continue;
    std::fill(counts.begin(), counts.end(), 0);
    std::fill(sums.begin(), sums.end(), 0.0);
    const int32_t* chosen = indices.data<int32_t>() + begin[s] * k;
    for (int64_t i = 0; i < length * k; ++i) ++counts[chosen[i]];
    for (int64_t t = begin[s]; t < begin[s + 1]; ++t) {
      const float* row = probs.data<float>() + t * experts;
      for (int64_t e = 0; e < experts; ++e) sums[e] += row[e];
    }
    double loss = 0;
    for (int64_t e = 0; e < experts; ++e) {
      const double share = static_cast<double>(counts[e]) / static_cast<double>(length * k);
      loss += share * sums[e];
      grads[e] =
          static_cast<float>(grad_scale * static_cast<double>(experts) * share / static_cast<double>(length));
    }
    losses.data<float>()[s] =
        static_cast<float>(loss * static_cast<double>(experts) / static_cast<double>(length));
    if (!dprobs.defined()) continue;
    for (int64_t t = begin[s]; t < begin[s + 1]; ++t) {
      float* row = dprobs.data<float>() + t * experts;
      for (int64_t e = 0; e < experts; ++e) row[e] += grads[e];
    }
  }
}

void CpuOps::BalanceCounts(const Tensor& probs, const Tensor& indices, const Tensor& offsets,
                           const Tensor& counts, const Tensor& prob_sums) {
  const int64_t experts = probs.dim(1), k = indices.dim(1), sequences = counts.dim(0);
  const int32_t* begin = CheckOffsets("BalanceCounts", offsets, sequences, probs.dim(0));
  CheckShape("BalanceCounts", indices, {probs.dim(0), k});
  CheckShape("BalanceCounts", counts, {sequences, experts});
  CheckSameShape("BalanceCounts", counts, prob_sums);
  std::vector<int32_t> chosen(experts);
  std::vector<double> sums(experts);
  for (int64_t s = 0; s < sequences; ++s) {
    std::fill(chosen.begin(), chosen.end(), 0);
    std::fill(sums.begin(), sums.end(), 0.0);
    for (int64_t i = begin[s] * k; i < begin[s + 1] * k; ++i) ++chosen[indices.data<int32_t>()[i]];
    for (int64_t t = begin[s]; t < begin[s + 1]; ++t) {
      const float* row = probs.data<float>() + t * experts;
      for (int64_t e = 0; e < experts; ++e) sums[e] += row[e];
    }
    for (int64_t e = 0; e < experts; ++e) {
      counts.data<float>()[s * experts + e] = static_cast<float>(chosen[e]);
      prob_sums.data<float>()[s * experts + e] = static_cast<float>(sums[e]);
    }
  }
}

void CpuOps::BalanceLossFromCounts(const Tensor& counts, const Tensor& prob_sums, const Tensor& lengths,
                                   int64_t choices, double grad_scale, const Tensor& offsets,
                                   const Tensor& losses, const Tensor& dprobs) {
  const int64_t sequences = counts.dim(0), experts = counts.dim(1);
  CheckSameShape("BalanceLossFromCounts", counts, prob_sums);
  for (const Tensor* other : {&lengths, &losses}) CheckShape("BalanceLossFromCounts", *other, {sequences});
  const int64_t rows = dprobs.defined() ? dprobs.dim(0) : offsets.data<int32_t>()[sequences];
  if (dprobs.defined()) CheckShape("BalanceLossFromCounts", dprobs, {rows, experts});
  const int32_t* begin = CheckOffsets("BalanceLossFromCounts", offsets, sequences, rows);
  std::vector<float> grads(experts);
  for (int64_t s = 0; s < sequences; ++s) {
    const double length = lengths.data<int32_t>()[s];
    COHORT_CHECK(begin[s + 1] - begin[s] <= length, "BalanceLossFromCounts: %d tokens of sequence %ld of %g",
                 begin[s + 1] - begin[s], static_cast<long>(s), length);
    losses.data<float>()[s] = 0;
    if (length == 0) continue;
    double loss = 0;
    for (int64_t e = 0; e < experts; ++e) {
      const double share = counts.data<float>()[s * experts + e] / (length * static_cast<double>(choices));
      loss += share * prob_sums.data<float>()[s * experts + e];
      grads[e] = static_cast<float>(grad_scale * static_cast<double>(experts) * share / length);
    }
    losses.data<float>()[s] = static_cast<float>(loss * static_cast<double>(experts) / length);
    if (!dprobs.defined()) continue;
    for (int64_t t = begin[s]; t < begin[s + 1]; ++t) {
      float* row = dprobs.data<float>() + t * experts;
      for (int64_t e = 0; e < experts; ++e) row[e] += grads[e];
    }
  }
}

void CpuOps::RouterZLoss(const Tensor& logits, double grad_scale, const Tensor& losses,
                         const Tensor& dlogits) {
  const int64_t experts = logits.dim(1);
  CheckShape("RouterZLoss", losses, {logits.dim(0)});
  if (dlogits.defined()) CheckSameShape("RouterZLoss", logits, dlogits);
  std::vector<float> exps(experts);
  for (int64_t t = 0; t < logits.dim(0); ++t) {
    const float* x = logits.data<float>() + t * experts;
    const float top = *std::max_element(x, x + experts);
    float sum = 0;
    for (int64_t e = 0; e < experts; ++e) sum += exps[e] = std::exp(x[e] - top);
    const float lse = top + std::log(sum);
    losses.data<float>()[t] = lse * lse;
    if (!dlogits.defined()) continue;
    const float factor = static_cast<float>(grad_scale * 2 * lse / sum);
    float* row = dlogits.data<float>() + t * experts;
    for (int64_t e = 0; e < experts; ++e) row[e] += factor * exps[e];
  }
}

void CpuOps::DropOverCapacity(const Tensor& indices, const Tensor& offsets, int64_t experts, double factor,
                              const Tensor& kept) {
  const int64_t k = indices.dim(1), sequences = offsets.dim(0) - 1;
  const int32_t* begin = CheckOffsets("DropOverCapacity", offsets, sequences, indices.dim(0));
  CheckSameShape("DropOverCapacity", indices, kept);
  for (int64_t s = 0; s < sequences; ++s) {
    DropSequenceOverCapacity(indices.data<int32_t>() + begin[s] * k, begin[s + 1] - begin[s], k, experts,
                             factor, kept.data<int32_t>() + begin[s] * k);
  }
}

}  // namespace cohort::runtime
