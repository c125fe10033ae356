// The vector kernels, one table per instruction set: each works on one thread on a range that the caller
// chose. float is the sum type. T is float or BFloat16. Sizes may be zero.
#pragma once

#include <cstdint>

#include "comm/data_type.h"

namespace cohort::runtime {

// Constants of one AdamW step (see Ops::AdamW).
struct AdamWConstants {
  float grad_scale;
  float beta1, complement1;  // complement: 1 - beta
  float beta2, complement2;
  float eps;
  float step_size;      // lr / (1 - beta1^step)
  float inverse_root2;  // 1 / sqrt(1 - beta2^step)
  float decay;          // lr weight_decay
};

template <typename T>
struct Kernels {
  void (*to_float)(const T* x, float* y, int64_t n);
  void (*from_float)(const float* x, T* y, int64_t n);
  // y += scale x
  void (*accumulate_state)(const T* x, float scale, float* y, int64_t n);
  void (*accumulate)(const T* x, float scale, T* y, int64_t n);
  void (*add)(const T* a, const T* b, T* c, int64_t n);
  void (*scale)(T* x, float factor, int64_t n);
  double (*sum_squares)(const T* x, int64_t n);
  void (*swiglu)(const T* gate, const T* up, T* y, int64_t n);
  void (*swiglu_grad)(const T* dy, const T* gate, const T* up, T* dgate, T* dup, int64_t n);
  // x, residual, sum, y [rows, d]; w [d]; rstd [rows]. residual null: sum is not written.
  void (*rms_norm)(const T* x, const T* residual, const T* w, float eps, T* sum, T* y, float* rstd,
                   int64_t rows, int64_t d);
  // add may be null.
  void (*rms_norm_grad)(const T* dy, const T* x, const T* w, const float* rstd, const T* add, T* dx,
                        int64_t rows, int64_t d);
  // dw [d] += sum over rows.
  void (*rms_norm_weight_grad)(const T* dy, const T* x, const float* rstd, float* dw, int64_t rows,
                               int64_t d);
  // x [tokens, heads, c], positions [tokens], table [*, c]. sign -1: the inverse.
  void (*rope)(T* x, const int32_t* positions, const float* table, float sign, int64_t tokens, int64_t heads,
               int64_t c);
  // One row: the loss of target (>= 0) and, where grad is not null, grad_scale (softmax - onehot).
  float (*cross_entropy)(const T* logits, int64_t v, int64_t target, float grad_scale, T* grad);
  // The maximum of a row and the sum of exp(logit - maximum).
  void (*softmax_stats)(const T* logits, int64_t v, float* max, double* sum);
  // y = exp(x - shift) factor; y may alias x.
  void (*scaled_exp)(const T* x, float shift, float factor, T* y, int64_t n);
  // value may be null.
  void (*adamw)(float* master, const float* grad, float* m, float* v, T* value, const AdamWConstants& step,
                int64_t n);
  // sum of a[i] b[i].
  float (*dot)(const T* a, const T* b, int64_t n);
  // y [columns, rows] = x [rows, columns] transposed; leading dimensions in elements.
  void (*transpose)(const T* x, int64_t ldx, T* y, int64_t ldy, int64_t rows, int64_t columns);
};

// The table for ActiveCpuIsa().
template <typename T>
const Kernels<T>& KernelsOf();
template <>
const Kernels<float>& KernelsOf<float>();
template <>
const Kernels<BFloat16>& KernelsOf<BFloat16>();

// Every instruction set's tables, one pair per file kernels_<isa>.cc.
namespace portable {
extern const Kernels<float> kFloatKernels;
extern const Kernels<BFloat16> kBFloat16Kernels;
}  // namespace portable
#if defined(__x86_64__)
namespace avx512 {
extern const Kernels<float> kFloatKernels;
extern const Kernels<BFloat16> kBFloat16Kernels;
}  // namespace avx512
namespace avx512_bf16 {
extern const Kernels<float> kFloatKernels;
extern const Kernels<BFloat16> kBFloat16Kernels;
}  // namespace avx512_bf16
#endif

}  // namespace cohort::runtime
