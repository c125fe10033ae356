// A matrix product on raw memory: what MatMul and the grouped products are made of.
#pragma once

#include <cstdint>

#include "comm/data_type.h"

namespace cohort::runtime {

// c[m,n] (+)= op(a)[m,k] op(b)[k,n]. Rows of a, b and c lie one after the other, or, where a stride is given,
// so many elements apart.
struct Product {
  int64_t m, n, k;
  bool transpose_a, transpose_b, accumulate;
  DataType input, output;  // kBF16 or kF32; output may be kF32 for bf16 inputs
  int64_t stride_a = 0, stride_b = 0, stride_c = 0;

  int64_t lda() const { return stride_a > 0 ? stride_a : transpose_a ? m : k; }
  int64_t ldb() const { return stride_b > 0 ? stride_b : transpose_b ? k : n; }
  int64_t ldc() const { return stride_c > 0 ? stride_c : n; }
  auto operator<=>(const Product&) const = default;  // NOLINT(modernize-use-nullptr): compared with 0 inside
};

// On CpuThreads() threads. Sizes may be zero; no strides.
void Multiply(const Product& product, const void* a, const void* b, void* c);

// The same through oneDNN's matmul primitive, for bf16 where oneDNN has it (AVX512
// and more), on so many threads. Sizes are positive.
void MultiplyWithPrimitive(const Product& product, int threads, const void* a, const void* b, void* c);

}  // namespace cohort::runtime
