// Random tensors and numerical gradients on the reference device.
#pragma once

#include <functional>
#include <vector>

#include "runtime/ops/ops.h"
#include "runtime/tensor.h"

namespace cohort::moe {

// N(0, stddev), f64 on the reference device.
inline runtime::Tensor Random(runtime::Shape shape, uint64_t seed, double stddev = 1) {
  runtime::Tensor x = runtime::Tensor::Empty(runtime::ReferenceDevice(), std::move(shape), DataType::kF64);
  runtime::ReferenceDevice().ops().FillNormal(x, seed, 1, 0, stddev);
  return x;
}

inline double Dot(const runtime::Tensor& a, const runtime::Tensor& b) {
  const std::vector<double> x = ToHost(a), y = ToHost(b);
  double sum = 0;
  for (size_t i = 0; i < x.size(); ++i) sum += x[i] * y[i];
  return sum;
}

// d f / d x[i] by central differences; x is left as it was.
inline std::vector<double> NumericalGradient(const runtime::Tensor& x, const std::function<double()>& f,
                                             double step = 1e-5) {
  std::vector<double> gradient;
  for (int64_t i = 0; i < x.size(); ++i) {
    double& value = x.data<double>()[i];
    const double before = value;
    value = before + step;
    const double above = f();
    value = before - step;
    const double below = f();
    value = before;
    gradient.push_back((above - below) / (2 * step));
  }
  return gradient;
}

}  // namespace cohort::moe
