// One instruction set's tables: included by kernels_<isa>.cc, which defines COHORT_ISA.
#pragma once

#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC 12 on its own AVX-512 headers
#include "runtime/ops/cpu/vec.h"
// vec.h first.
#include "runtime/ops/cpu/elementwise_kernels.h"
#include "runtime/ops/cpu/norm_kernels.h"
#include "runtime/ops/cpu/row_kernels.h"

namespace cohort::runtime::COHORT_ISA {

template <typename T>
constexpr Kernels<T> Table() {
  return {.to_float = &ToFloat<T>,
          .from_float = &FromFloat<T>,
          .accumulate_state = &Accumulate<T, float>,
          .accumulate = &Accumulate<T, T>,
          .add = &Add<T>,
          .scale = &Scale<T>,
          .sum_squares = &SumSquares<T>,
          .swiglu = &SwiGlu<T>,
          .swiglu_grad = &SwiGluGrad<T>,
          .rms_norm = &RmsNorm<T>,
          .rms_norm_grad = &RmsNormGrad<T>,
          .rms_norm_weight_grad = &RmsNormWeightGrad<T>,
          .rope = &Rope<T>,
          .cross_entropy = &CrossEntropy<T>,
          .softmax_stats = &SoftmaxStats<T>,
          .scaled_exp = &ScaledExp<T>,
          .adamw = &AdamW<T>,
          .dot = &Dot<T>,
          .transpose = &Transpose<T>};
}

constinit const Kernels<float> kFloatKernels = Table<float>();
constinit const Kernels<BFloat16> kBFloat16Kernels = Table<BFloat16>();

}  // namespace cohort::runtime::COHORT_ISA
