// AdamW (Loshchilov & Hutter, 2019, algorithm 2) with bias correction and decoupled weight decay.
#include <cmath>

#include "runtime/ops/check_shapes.h"
#include "runtime/ops/convert.h"
#include "runtime/ops/reference/reference_ops.h"

namespace cohort::runtime {

void ReferenceOps::AdamW(const Tensor& master, const Tensor& grad, const Tensor& m, const Tensor& v,
                         const Tensor& value, const AdamWOptions& options) {
  CheckSameShape("AdamW", master, grad);
  CheckSameShape("AdamW", master, m);
  CheckSameShape("AdamW", master, v);
  const double correction1 = 1 - std::pow(options.beta1, static_cast<double>(options.step));
  const double correction2 = 1 - std::pow(options.beta2, static_cast<double>(options.step));
  for (int64_t i = 0; i < master.size(); ++i) {
    const double g = grad.data<double>()[i] * options.grad_scale;
    double &first = m.data<double>()[i], &second = v.data<double>()[i], &w = master.data<double>()[i];
    first = options.beta1 * first + (1 - options.beta1) * g;
    second = options.beta2 * second + (1 - options.beta2) * g * g;
    const double update = first / correction1 / (std::sqrt(second / correction2) + options.eps);
    w -= options.lr * (update + options.weight_decay * w);
  }
  if (value.defined()) Copy(master, value);
}

}  // namespace cohort::runtime
