// y = x W^T for a weight W [out, in], as Hugging Face stores it, and its gradients.
#pragma once

#include "runtime/model/parameter.h"
#include "runtime/ops/ops.h"

namespace cohort::runtime {

// x [T, in] -> [T, out] in the compute type.
inline Tensor Linear(const Tensor& x, const Parameter& w) {
  Tensor y = Tensor::Empty(x.device(), {x.dim(0), w.shape[0]}, x.dtype());
  x.device().ops().MatMul(x, w.value, y, {.transpose_b = true});
  return y;
}

// dx [T, in] (+)= dy [T, out] W.
inline void LinearInputGrad(const Tensor& dy, const Parameter& w, const Tensor& dx, bool accumulate = false) {
  dy.device().ops().MatMul(dy, w.value, dx, {.accumulate = accumulate});
}

// dW += dy^T x.
inline void LinearWeightGrad(const Tensor& dy, const Tensor& x, Parameter& w) {
  dy.device().ops().MatMul(dy, x, w.grad, {.transpose_a = true, .accumulate = true});
}

}  // namespace cohort::runtime
