// A matrix product on raw memory: what MatMul and the grouped products are made of.
#pragma once

#include <cstdint>

#include "comm/data_type.h"

namespace cohort::runtime {

// c[m,n] (+)= op(a)[m,k] op(b)[k,n], rows of a, b and c packed one after the other.
struct Product {
  int64_t m, n, k;
  bool transpose_a, transpose_b, accumulate;
  DataType input, output;                            // kBF16 or kF32; output may be kF32 for bf16 inputs
  auto operator<=>(const Product&) const = default;  // NOLINT(modernize-use-nullptr): compared with 0 inside
};

// On CpuThreads() threads. Sizes may be zero.
void Multiply(const Product& product, const void* a, const void* b, void* c);

// The same through oneDNN's matmul primitive, for bf16 where oneDNN has it (AVX512
// and more). Sizes are positive.
void MultiplyWithPrimitive(const Product& product, const void* a, const void* b, void* c);

}  // namespace cohort::runtime
