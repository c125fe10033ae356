// The loss of next-token prediction on the CPU: a pass over a row for its maximum and sum,
// a second for its gradient.
#include <algorithm>

#include "runtime/ops/check_shapes.h"
#include "runtime/ops/cpu/compute_type.h"
#include "runtime/ops/cpu/cpu_ops.h"
#include "runtime/ops/cpu/kernels.h"
#include "runtime/ops/cpu/parallel.h"
#include "runtime/ops/cpu/policy.h"

namespace cohort::runtime {

void CpuOps::CrossEntropy(const Tensor& logits, const Tensor& targets, double grad_scale,
                          const Tensor& losses, const Tensor& dlogits) {
  const int64_t rows = logits.dim(0), v = logits.dim(1);
  CheckShape("CrossEntropy", targets, {rows});
  CheckShape("CrossEntropy", losses, {rows});
  if (dlogits.defined()) {
    CheckSameShape("CrossEntropy", logits, dlogits);
    CheckSameType("CrossEntropy", logits, dlogits);
  }
  const int32_t* target = targets.data<int32_t>();
  float* loss = losses.data<float>();
  WithComputeType("CrossEntropy", logits, [&]<typename T>(T) {
    const T* in = logits.data<T>();
    T* out = dlogits.defined() ? dlogits.data<T>() : nullptr;
    const int64_t grain = 1 + cpu_policy::kElementGrain / (v + 1);
    ParallelFor(rows, grain, 1, [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) {
        COHORT_CHECK(target[t] < v, "CrossEntropy: target %d of %ld classes", target[t],
                     static_cast<long>(v));
        T* grad = out == nullptr ? nullptr : out + t * v;
        if (target[t] < 0) {
          loss[t] = 0;
          if (grad != nullptr) std::fill(grad, grad + v, T{});
        } else {
          loss[t] =
              KernelsOf<T>().cross_entropy(in + t * v, v, target[t], static_cast<float>(grad_scale), grad);
        }
      }
    });
  });
}

}  // namespace cohort::runtime
