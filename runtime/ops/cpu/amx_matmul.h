// Products of bf16 matrices on AMX tiles. Only where ActiveCpuIsa() is kAmx.
#pragma once

#include <cstdint>

#include "comm/data_type.h"

namespace cohort::runtime {

// c[m,n] (+)= op(a)[m,k] op(b)[k,n]; lda, ldb, ldc: elements from a row in memory to
// the next. Sizes are positive.
struct AmxProduct {
  int64_t m, n, k;
  const BFloat16* a;
  int64_t lda;
  bool transpose_a;
  const BFloat16* b;
  int64_t ldb;
  bool transpose_b;
  void* c;
  int64_t ldc;
  DataType output;  // kF32 or kBF16
  bool accumulate;
};

// On the calling thread.
void MultiplyOnTiles(const AmxProduct& product);

}  // namespace cohort::runtime
