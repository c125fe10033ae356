// The loss over a split vocabulary by its definition, in f64.
#include <algorithm>
#include <cmath>
#include <limits>

#include "runtime/ops/check_shapes.h"
#include "runtime/ops/reference/reference_ops.h"

namespace cohort::runtime {

void ReferenceOps::VocabularyStats(const Tensor& logits, const Tensor& targets, int64_t first,
                                   const Tensor& max, const Tensor& sum, const Tensor& target_logit) {
  const int64_t rows = logits.dim(0), v = logits.dim(1);
  for (const Tensor* other : {&targets, &max, &sum, &target_logit})
    CheckShape("VocabularyStats", *other, {rows});
  for (int64_t t = 0; t < rows; ++t) {
    const double* in = logits.data<double>() + t * v;
    const int64_t target = targets.data<int32_t>()[t];
    double top = 0, total = 0, at_target = 0;
    if (target >= 0) {
      top = -std::numeric_limits<double>::infinity();
      for (int64_t i = 0; i < v; ++i) top = std::max(top, in[i]);
      for (int64_t i = 0; i < v; ++i) total += std::isinf(in[i]) && in[i] < 0 ? 0 : std::exp(in[i] - top);
      if (target >= first && target < first + v) at_target = in[target - first];
    }
    max.data<double>()[t] = top;
    sum.data<double>()[t] = total;
    target_logit.data<double>()[t] = at_target;
  }
}

void ReferenceOps::VocabularyRescale(const Tensor& max, const Tensor& global_max, const Tensor& sum) {
  CheckSameShape("VocabularyRescale", max, global_max);
  CheckSameShape("VocabularyRescale", max, sum);
  for (int64_t t = 0; t < max.size(); ++t) {
    double& value = sum.data<double>()[t];
    if (value != 0) value *= std::exp(max.data<double>()[t] - global_max.data<double>()[t]);
  }
}

void ReferenceOps::VocabularyLoss(const Tensor& targets, const Tensor& max, const Tensor& sum,
                                  const Tensor& target_logit, const Tensor& lse, const Tensor& losses) {
  for (const Tensor* other : {&max, &sum, &target_logit, &lse, &losses})
    CheckSameShape("VocabularyLoss", targets, *other);
  for (int64_t t = 0; t < targets.size(); ++t) {
    const bool ignored = targets.data<int32_t>()[t] < 0;
    const double value = ignored ? 0 : max.data<double>()[t] + std::log(sum.data<double>()[t]);
    lse.data<double>()[t] = value;
    losses.data<double>()[t] = ignored ? 0 : value - target_logit.data<double>()[t];
  }
}

void ReferenceOps::VocabularyGrad(const Tensor& logits, const Tensor& targets, int64_t first,
                                  const Tensor& lse, double grad_scale, const Tensor& dlogits) {
  const int64_t rows = logits.dim(0), v = logits.dim(1);
  for (const Tensor* other : {&targets, &lse}) CheckShape("VocabularyGrad", *other, {rows});
  CheckSameShape("VocabularyGrad", logits, dlogits);
  for (int64_t t = 0; t < rows; ++t) {
    const int64_t target = targets.data<int32_t>()[t];
    for (int64_t i = t * v; i < (t + 1) * v; ++i) {
      const double p = std::exp(logits.data<double>()[i] - lse.data<double>()[t]);
      dlogits.data<double>()[i] = target < 0 ? 0 : grad_scale * (p - (first + i - t * v == target ? 1 : 0));
    }
  }
}

}  // namespace cohort::runtime
