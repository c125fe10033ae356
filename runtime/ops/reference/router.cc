// The router's losses and its capacity by their definitions, in f64.
#include <algorithm>
#include <cmath>
#include <vector>

#include "runtime/ops/capacity.h"
#include "runtime/ops/check_shapes.h"
#include "runtime/ops/reference/reference_ops.h"

namespace cohort::runtime {

void ReferenceOps::BalanceLoss(const Tensor& probs, const Tensor& indices, const Tensor& offsets,
                               double grad_scale, const Tensor& losses, const Tensor& dprobs) {
  const int64_t experts = probs.dim(1), k = indices.dim(1), sequences = losses.dim(0);
  const int32_t* begin = CheckOffsets("BalanceLoss", offsets, sequences, probs.dim(0));
  const double* p = probs.data<double>();
  for (int64_t s = 0; s < sequences; ++s) {
    const double length = begin[s + 1] - begin[s];
    losses.data<double>()[s] = 0;
    if (length == 0) continue;
    for (int64_t e = 0; e < experts; ++e) {
      double share = 0, mean = 0;
      for (int64_t t = begin[s]; t < begin[s + 1]; ++t) {
        for (int64_t j = 0; j < k; ++j) share += indices.data<int32_t>()[t * k + j] == e;
        mean += p[t * experts + e];
      }
      share /= length * k;
      mean /= length;
      losses.data<double>()[s] += experts * share * mean;
      if (!dprobs.defined()) continue;
      for (int64_t t = begin[s]; t < begin[s + 1]; ++t) {
        dprobs.data<double>()[t * experts + e] += grad_scale * experts * share / length;
      }
    }
  }
}

void ReferenceOps::BalanceCounts(const Tensor& probs, const Tensor& indices, const Tensor& offsets,
                                 const Tensor& counts, const Tensor& prob_sums) {
  const int64_t experts = probs.dim(1), k = indices.dim(1), sequences = counts.dim(0);
  const int32_t* begin = CheckOffsets("BalanceCounts", offsets, sequences, probs.dim(0));
  CheckShape("BalanceCounts", counts, {sequences, experts});
  CheckSameShape("BalanceCounts", counts, prob_sums);
  for (int64_t s = 0; s < sequences; ++s) {
    for (int64_t e = 0; e < experts; ++e) {
      double count = 0, sum = 0;
      for (int64_t t = begin[s]; t < begin[s + 1]; ++t) {
        for (int64_t j = 0; j < k; ++j) count += indices.data<int32_t>()[t * k + j] == e;
        sum += probs.data<double>()[t * experts + e];
      }
      counts.data<double>()[s * experts + e] = count;
      prob_sums.data<double>()[s * experts + e] = sum;
    }
  }
}

void ReferenceOps::BalanceLossFromCounts(const Tensor& counts, const Tensor& prob_sums, const Tensor& lengths,
                                         int64_t choices, double grad_scale, const Tensor& offsets,
                                         const Tensor& losses, const Tensor& dprobs) {
  const int64_t sequences = counts.dim(0), experts = counts.dim(1);
  CheckSameShape("BalanceLossFromCounts", counts, prob_sums);
  for (const Tensor* other : {&lengths, &losses}) CheckShape("BalanceLossFromCounts", *other, {sequences});
  const int32_t* begin = CheckOffsets("BalanceLossFromCounts", offsets, sequences,
                                      dprobs.defined() ? dprobs.dim(0) : offsets.data<int32_t>()[sequences]);
  for (int64_t s = 0; s < sequences; ++s) {
    const double length = lengths.data<int32_t>()[s];
    losses.data<double>()[s] = 0;
    if (length == 0) continue;
    for (int64_t e = 0; e < experts; ++e) {
      const double share = counts.data<double>()[s * experts + e] / (length * static_cast<double>(choices));
      losses.data<double>()[s] += experts * share * prob_sums.data<double>()[s * experts + e] / length;
      if (!dprobs.defined()) continue;
      for (int64_t t = begin[s]; t < begin[s + 1]; ++t) {
        dprobs.data<double>()[t * experts + e] += grad_scale * experts * share / length;
      }
    }
  }
}

void ReferenceOps::RouterZLoss(const Tensor& logits, double grad_scale, const Tensor& losses,
                               const Tensor& dlogits) {
  const int64_t experts = logits.dim(1);
  CheckShape("RouterZLoss", losses, {logits.dim(0)});
  for (int64_t t = 0; t < logits.dim(0); ++t) {
    const double* x = logits.data<double>() + t * experts;
    const double top = *std::max_element(x, x + experts);
    double sum = 0;
    for (int64_t e = 0; e < experts; ++e) sum += std::exp(x[e] - top);
    const double lse = top + std::log(sum);
    losses.data<double>()[t] = lse * lse;
    if (!dlogits.defined()) continue;
    for (int64_t e = 0; e < experts; ++e) {
      dlogits.data<double>()[t * experts + e] += grad_scale * 2 * lse * std::exp(x[e] - lse);
    }
  }
}

void ReferenceOps::DropOverCapacity(const Tensor& indices, const Tensor& offsets, int64_t experts,
                                    double factor, const Tensor& kept) {
  const int64_t k = indices.dim(1), sequences = offsets.dim(0) - 1;
  const int32_t* begin = CheckOffsets("DropOverCapacity", offsets, sequences, indices.dim(0));
  CheckSameShape("DropOverCapacity", indices, kept);
  for (int64_t s = 0; s < sequences; ++s) {
    DropSequenceOverCapacity(indices.data<int32_t>() + begin[s] * k, begin[s + 1] - begin[s], k, experts,
                             factor, kept.data<int32_t>() + begin[s] * k);
  }
}

}  // namespace cohort::runtime
