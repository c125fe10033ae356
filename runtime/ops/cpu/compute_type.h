// The two types in which the CPU computes.
#pragma once

#include "comm/check.h"
#include "runtime/tensor.h"

namespace cohort::runtime {

// Calls body(T{}) with T float or BFloat16, the type of x's elements.
template <typename Body>
void WithComputeType(const char* op, const Tensor& x, const Body& body) {
  switch (x.dtype()) {
    case DataType::kF32:
      return body(float{});
    case DataType::kBF16:
      return body(BFloat16{});
    default:
      COHORT_CHECK(false, "%s of %s: the CPU computes in f32 and bf16", op, x.DebugString().c_str());
  }
}

}  // namespace cohort::runtime
