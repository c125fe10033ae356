// RMSNorm (Zhang & Sennrich, 2019) and its gradients.
#include <cmath>

#include "runtime/ops/check_shapes.h"
#include "runtime/ops/reference/reference_ops.h"

namespace cohort::runtime {

void ReferenceOps::RmsNorm(const Tensor& x, const Tensor& w, double eps, const Tensor& y,
                           const Tensor& rstd) {
  const int64_t rows = x.dim(0), d = x.dim(1);
  CheckSameShape("RmsNorm", x, y);
  CheckShape("RmsNorm", w, {d});
  CheckShape("RmsNorm", rstd, {rows});
  for (int64_t t = 0; t < rows; ++t) {
    const double* in = x.data<double>() + t * d;
    double squares = 0;
    for (int64_t i = 0; i < d; ++i) squares += in[i] * in[i];
    const double r = d == 0 ? 0 : 1 / std::sqrt(squares / static_cast<double>(d) + eps);
    rstd.data<double>()[t] = r;
    for (int64_t i = 0; i < d; ++i) y.data<double>()[t * d + i] = in[i] * r * w.data<double>()[i];
  }
}

void ReferenceOps::AddRmsNorm(const Tensor& x, const Tensor& residual, const Tensor& w, double eps,
                              const Tensor& sum, const Tensor& y, const Tensor& rstd) {
  Add(x, residual, sum);
  RmsNorm(sum, w, eps, y, rstd);
}

// With g = dy w and n = x rstd: dx = rstd (g - n mean(g n)).
void ReferenceOps::RmsNormGrad(const Tensor& dy, const Tensor& x, const Tensor& w, const Tensor& rstd,
                               const Tensor& add, const Tensor& dx) {
  const int64_t rows = x.dim(0), d = x.dim(1);
  CheckSameShape("RmsNormGrad", dy, x);
  CheckSameShape("RmsNormGrad", dx, x);
  CheckShape("RmsNormGrad", w, {d});
  CheckShape("RmsNormGrad", rstd, {rows});
  if (add.defined()) CheckSameShape("RmsNormGrad", add, x);
  for (int64_t t = 0; t < rows; ++t) {
    const double *g = dy.data<double>() + t * d, *in = x.data<double>() + t * d, *weight = w.data<double>();
    const double r = rstd.data<double>()[t];
    double dot = 0;
    for (int64_t i = 0; i < d; ++i) dot += g[i] * weight[i] * in[i] * r;
    dot /= static_cast<double>(d);
    for (int64_t i = 0; i < d; ++i) {
      const double grad = r * (g[i] * weight[i] - in[i] * r * dot);
      dx.data<double>()[t * d + i] = grad + (add.defined() ? add.data<double>()[t * d + i] : 0);
    }
  }
}

void ReferenceOps::RmsNormWeightGrad(const Tensor& dy, const Tensor& x, const Tensor& rstd,
                                     const Tensor& dw) {
  const int64_t rows = x.dim(0), d = x.dim(1);
  CheckSameShape("RmsNormWeightGrad", dy, x);
  CheckShape("RmsNormWeightGrad", rstd, {rows});
  CheckShape("RmsNormWeightGrad", dw, {d});
  for (int64_t t = 0; t < rows; ++t) {
    for (int64_t i = 0; i < d; ++i) {
      dw.data<double>()[i] +=
          dy.data<double>()[t * d + i] * x.data<double>()[t * d + i] * rstd.data<double>()[t];
    }
  }
}

}  // namespace cohort::runtime
