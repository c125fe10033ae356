// The vendor's matrix products, as far as MatMul needs them.
#pragma once

#include "comm/data_type.h"
#include "runtime/ops/cuda/language.h"

namespace cohort::runtime::COHORT_CUDA {

// c[m, n] (+)= op(a)[m, k] op(b)[k, n], row-major.
struct BlasProduct {
  int64_t m, n, k;
  bool transpose_a, transpose_b, accumulate;
  DataType input, output;
  bool operator==(const BlasProduct&) const = default;
};

class Blas {
 public:
  virtual ~Blas() = default;
  // Enqueues the product; false where the library has no kernel for it, and then nothing happened. Sums in f32, of f32
  // inputs in full f32.
  virtual bool Multiply(const BlasProduct& product, const void* a, const void* b, void* c) = 0;
};

}  // namespace cohort::runtime::COHORT_CUDA
