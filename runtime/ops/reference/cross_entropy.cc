// The loss of next-token prediction, and its gradient.
#include <algorithm>
#include <cmath>

#include "runtime/ops/check_shapes.h"
#include "runtime/ops/reference/reference_ops.h"

namespace cohort::runtime {

void ReferenceOps::CrossEntropy(const Tensor& logits, const Tensor& targets, double grad_scale,
                                const Tensor& losses, const Tensor& dlogits) {
  const int64_t rows = logits.dim(0), v = logits.dim(1);
  CheckShape("CrossEntropy", targets, {rows});
  CheckShape("CrossEntropy", losses, {rows});
  if (dlogits.defined()) CheckSameShape("CrossEntropy", logits, dlogits);
  for (int64_t t = 0; t < rows; ++t) {
    const double* in = logits.data<double>() + t * v;
    double* out = dlogits.defined() ? dlogits.data<double>() + t * v : nullptr;
    const int64_t target = targets.data<int32_t>()[t];
    COHORT_CHECK(target < v, "CrossEntropy: target %ld of %ld classes", static_cast<long>(target),
                 static_cast<long>(v));
    if (target < 0) {
      losses.data<double>()[t] = 0;
      if (out != nullptr) std::fill(out, out + v, 0.0);
      continue;
    }
    const double top = *std::max_element(in, in + v);
    double sum = 0;
    for (int64_t i = 0; i < v; ++i) sum += std::exp(in[i] - top);
    losses.data<double>()[t] = std::log(sum) + top - in[target];
    if (out == nullptr) continue;
    for (int64_t i = 0; i < v; ++i) {
      out[i] = grad_scale * (std::exp(in[i] - top) / sum - (i == target ? 1 : 0));
    }
  }
}

}  // namespace cohort::runtime
