// Elementwise operations, random numbers, SwiGLU and AdamW.
#include "runtime/ops/cuda/elementwise.h"

#include <bit>
#include <cmath>
#include <cstring>

#include "runtime/ops/check_shapes.h"
#include "runtime/ops/convert.h"
#include "runtime/ops/cuda/compute_type.h"
#include "runtime/ops/cuda/cuda_ops.h"

namespace cohort::runtime::COHORT_CUDA {

void CudaOps::Fill(const Tensor& x, double value) {
  uint64_t bits = 0;
  switch (x.dtype()) {
#define COHORT_X(enumerator, type, name, accumulator)              \
  case DataType::enumerator: {                                     \
    const type element = cohort::runtime::FromDouble<type>(value); \
    std::memcpy(&bits, &element, sizeof(element));                 \
    break;                                                         \
  }
    COHORT_DATA_TYPES(COHORT_X)
#undef COHORT_X
  }
  FillBits(Enter(), x.raw(), x.size(), SizeOf(x.dtype()), bits);
}

void CudaOps::Copy(const Tensor& x, const Tensor& y) {
  CheckSameShape("Copy", x, y);
  if (x.dtype() == y.dtype()) {
    if (x.raw() != y.raw() && x.bytes() > 0) CopyBytes(Enter(), x.raw(), y.raw(), x.bytes());
    return;
  }
  ConvertElements(Enter(), x.raw(), FloatTypeOf("Copy", x), y.raw(), FloatTypeOf("Copy", y), x.size());
}

void CudaOps::Accumulate(const Tensor& x, double scale, const Tensor& y) {
  CheckSameShape("Accumulate", x, y);
  AccumulateElements(Enter(), x.raw(), FloatTypeOf("Accumulate", x), scale, y.raw(),
                     FloatTypeOf("Accumulate", y), x.size());
}

void CudaOps::Add(const Tensor& a, const Tensor& b, const Tensor& c) {
  for (const Tensor* other : {&b, &c}) {
    CheckSameShape("Add", a, *other);
    CheckSameType("Add", a, *other);
  }
  WithComputeType("Add", a, [&]<typename T>(T) {
    AddElements<T>(Enter(), Data<T>(a), Data<T>(b), Data<T>(c), a.size());
  });
}

void CudaOps::Scale(const Tensor& x, double factor) {
  WithComputeType("Scale", x, [&]<typename T>(T) {
    ScaleElements<T>(Enter(), Data<T>(x), static_cast<float>(factor), x.size());
  });
}

void CudaOps::FillNormal(const Tensor& x, uint64_t seed, uint32_t purpose, uint64_t first_index,
                         double stddev) {
  NormalElements(Enter(), x.raw(), FloatTypeOf("FillNormal", x), x.size(), seed, purpose, first_index,
                 stddev);
}

void CudaOps::SumSquares(const Tensor& x, const Tensor& out) {
  CheckShape("SumSquares", out, {1});
  const Tensor partial = Scratch({kSumBlocks}, DataType::kF64);
  WithComputeType("SumSquares", x, [&]<typename T>(T) {
    SumSquaresElements<T>(Enter(), Data<T>(x), x.size(), partial.data<double>(), out.data<double>());
  });
}

void CudaOps::SwiGlu(const Tensor& gate, const Tensor& up, const Tensor& y) {
  for (const Tensor* other : {&up, &y}) {
    CheckSameShape("SwiGlu", gate, *other);
    CheckSameType("SwiGlu", gate, *other);
  }
  WithComputeType("SwiGlu", y, [&]<typename T>(T) {
    SwiGluElements<T>(Enter(), Data<T>(gate), Data<T>(up), Data<T>(y), y.size());
  });
}

void CudaOps::SwiGluGrad(const Tensor& dy, const Tensor& gate, const Tensor& up, const Tensor& dgate,
                         const Tensor& dup) {
  for (const Tensor* other : {&gate, &up, &dgate, &dup}) {
    CheckSameShape("SwiGluGrad", dy, *other);
    CheckSameType("SwiGluGrad", dy, *other);
  }
  WithComputeType("SwiGluGrad", dy, [&]<typename T>(T) {
    SwiGluGradElements<T>(Enter(), Data<T>(dy), Data<T>(gate), Data<T>(up), Data<T>(dgate), Data<T>(dup),
                          dy.size());
  });
}

// With c1, c2 the bias corrections: w -= lr (m / c1 / (sqrt(v / c2) + eps) + decay w).
void CudaOps::AdamW(const Tensor& master, const Tensor& grad, const Tensor& m, const Tensor& v,
                    const Tensor& value, const AdamWOptions& options) {
  for (const Tensor* other : {&grad, &m, &v}) CheckSameShape("AdamW", master, *other);
  if (value.defined()) CheckSameShape("AdamW", master, value);
  const double correction1 = 1 - std::pow(options.beta1, static_cast<double>(options.step));
  const double correction2 = 1 - std::pow(options.beta2, static_cast<double>(options.step));
  const AdamWStep step = {.grad_scale = static_cast<float>(options.grad_scale),
                          .beta1 = static_cast<float>(options.beta1),
                          .complement1 = static_cast<float>(1 - options.beta1),
                          .beta2 = static_cast<float>(options.beta2),
                          .complement2 = static_cast<float>(1 - options.beta2),
                          .eps = static_cast<float>(options.eps),
                          .step_size = static_cast<float>(options.lr / correction1),
                          .inverse_root2 = static_cast<float>(1 / std::sqrt(correction2)),
                          .decay = static_cast<float>(options.lr * options.weight_decay)};
  WithComputeType("AdamW", value.defined() ? value : master, [&]<typename T>(T) {
    AdamWElements<T>(Enter(), Floats(master), Floats(grad), Floats(m), Floats(v), Data<T>(value), step,
                     master.size());
  });
}

}  // namespace cohort::runtime::COHORT_CUDA
