// From the types of tensors to those of kernels.
#pragma once

#include "comm/check.h"
#include "runtime/ops/cuda/element.h"
#include "runtime/tensor.h"

namespace cohort::runtime::COHORT_CUDA {

// Calls body(T{}) with T float or Bf16, the type of x's elements.
template <typename Body>
void WithComputeType(const char* op, const Tensor& x, const Body& body) {
  switch (x.dtype()) {
    case DataType::kF32:
      return body(float{});
    case DataType::kBF16:
      return body(Bf16{});
    default:
      COHORT_CHECK(false, "%s of %s: CUDA computes in f32 and bf16", op, x.DebugString().c_str());
  }
}

inline FloatType FloatTypeOf(const char* op, const Tensor& x) {
  switch (x.dtype()) {
    case DataType::kF32:
      return FloatType::kF32;
    case DataType::kBF16:
      return FloatType::kBF16;
    case DataType::kF16:
      return FloatType::kF16;
    case DataType::kF64:
      return FloatType::kF64;
    default:
      COHORT_CHECK(false, "%s of %s: an operation on floats", op, x.DebugString().c_str());
      return FloatType::kF32;
  }
}

template <typename T>
constexpr DataType kTypeOf = sizeof(T) == 2 ? DataType::kBF16 : DataType::kF32;

// The elements as kernels see them; null where undefined. T float or Bf16. Aborts where the tensor is of another type.
template <typename T>
T* Data(const Tensor& x) {
  if (!x.defined()) return nullptr;
  COHORT_CHECK(x.dtype() == kTypeOf<T>, "%s read as %s", x.DebugString().c_str(), Name(kTypeOf<T>));
  return static_cast<T*>(x.raw());
}
// f32 and i32.
inline float* Floats(const Tensor& x) { return x.defined() ? x.data<float>() : nullptr; }
inline int32_t* Indices(const Tensor& x) { return x.defined() ? x.data<int32_t>() : nullptr; }

}  // namespace cohort::runtime::COHORT_CUDA
