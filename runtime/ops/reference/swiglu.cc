// SwiGLU (Shazeer, 2020).
#include <cmath>

#include "runtime/ops/check_shapes.h"
#include "runtime/ops/reference/reference_ops.h"

namespace cohort::runtime {

void ReferenceOps::SwiGlu(const Tensor& gate, const Tensor& up, const Tensor& y) {
  CheckSameShape("SwiGlu", gate, up);
  CheckSameShape("SwiGlu", gate, y);
  for (int64_t i = 0; i < y.size(); ++i) {
    const double g = gate.data<double>()[i];
    y.data<double>()[i] = g / (1 + std::exp(-g)) * up.data<double>()[i];
  }
}

// silu'(g) = s (1 + g (1 - s)), s the sigmoid of g.
void ReferenceOps::SwiGluGrad(const Tensor& dy, const Tensor& gate, const Tensor& up, const Tensor& dgate,
                              const Tensor& dup) {
  CheckSameShape("SwiGluGrad", gate, dy);
  CheckSameShape("SwiGluGrad", gate, up);
  CheckSameShape("SwiGluGrad", gate, dgate);
  CheckSameShape("SwiGluGrad", gate, dup);
  for (int64_t i = 0; i < dy.size(); ++i) {
    const double grad = dy.data<double>()[i], g = gate.data<double>()[i], u = up.data<double>()[i];
    const double s = 1 / (1 + std::exp(-g));
    dgate.data<double>()[i] = grad * u * s * (1 + g * (1 - s));
    dup.data<double>()[i] = grad * g * s;
  }
}

}  // namespace cohort::runtime
