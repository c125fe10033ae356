// AdamW on the CPU: one pass over master, gradient and both moments.
#include <cmath>

#include "runtime/ops/check_shapes.h"
#include "runtime/ops/cpu/compute_type.h"
#include "runtime/ops/cpu/cpu_ops.h"
#include "runtime/ops/cpu/kernels.h"
#include "runtime/ops/cpu/parallel.h"
#include "runtime/ops/cpu/policy.h"

namespace cohort::runtime {

void CpuOps::AdamW(const Tensor& master, const Tensor& grad, const Tensor& m, const Tensor& v,
                   const Tensor& value, const AdamWOptions& options) {
  CheckSameShape("AdamW", master, grad);
  CheckSameShape("AdamW", master, m);
  CheckSameShape("AdamW", master, v);
  if (value.defined()) CheckSameShape("AdamW", master, value);
  const double correction1 = 1 - std::pow(options.beta1, static_cast<double>(options.step));
  const double correction2 = 1 - std::pow(options.beta2, static_cast<double>(options.step));
  const AdamWConstants step = {.grad_scale = static_cast<float>(options.grad_scale),
                               .beta1 = static_cast<float>(options.beta1),
                               .complement1 = static_cast<float>(1 - options.beta1),
                               .beta2 = static_cast<float>(options.beta2),
                               .complement2 = static_cast<float>(1 - options.beta2),
                               .eps = static_cast<float>(options.eps),
                               .step_size = static_cast<float>(options.lr / correction1),
                               .inverse_root2 = static_cast<float>(1 / std::sqrt(correction2)),
                               .decay = static_cast<float>(options.lr * options.weight_decay)};
  WithComputeType("AdamW", value.defined() ? value : master, [&]<typename T>(T) {
    T* rounded = value.defined() ? value.data<T>() : nullptr;
    const int64_t grain = cpu_policy::kElementGrain, align = cpu_policy::kElementAlign;
    ParallelFor(master.size(), grain, align, [&](int64_t begin, int64_t end) {
      KernelsOf<T>().adamw(master.data<float>() + begin, grad.data<float>() + begin, m.data<float>() + begin,
                           v.data<float>() + begin, rounded == nullptr ? nullptr : rounded + begin, step,
                           end - begin);
    });
  });
}

}  // namespace cohort::runtime
