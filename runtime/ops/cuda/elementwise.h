// The kernels of elementwise.cu, normal.cu and sum_squares.cu.
#pragma once

#include "runtime/ops/cuda/element.h"
#include "runtime/ops/cuda/launch.h"

namespace cohort::runtime::COHORT_CUDA {

// n elements of 1, 2, 4 or 8 bytes, each the low bytes of `bits`.
void FillBits(const Queue& queue, void* x, int64_t n, size_t element_bytes, uint64_t bits);
// The same bytes elsewhere.
void CopyBytes(const Queue& queue, const void* x, void* y, size_t bytes);
// y = x, and y += scale x, between any float types. In place where the types are equal.
void ConvertElements(const Queue& queue, const void* x, FloatType from, void* y, FloatType to, int64_t n);
void AccumulateElements(const Queue& queue, const void* x, FloatType from, double scale, void* y,
                        FloatType to, int64_t n);
// c = a + b, x *= factor; T float or Bf16.
template <typename T>
void AddElements(const Queue& queue, const T* a, const T* b, T* c, int64_t n);
template <typename T>
void ScaleElements(const Queue& queue, T* x, float factor, int64_t n);

// silu(gate) up and its gradients.
template <typename T>
void SwiGluElements(const Queue& queue, const T* gate, const T* up, T* y, int64_t n);
template <typename T>
void SwiGluGradElements(const Queue& queue, const T* dy, const T* gate, const T* up, T* dgate, T* dup,
                        int64_t n);

// What a step of AdamW multiplies by (see adamw of runtime/ops/cuda/adamw.cc).
struct AdamWStep {
  float grad_scale, beta1, complement1, beta2, complement2, eps, step_size, inverse_root2, decay;
};
// value may be null.
template <typename T>
void AdamWElements(const Queue& queue, float* master, const float* grad, float* m, float* v, T* value,
                   const AdamWStep& step, int64_t n);

// x[i] = stddev N(0, 1) of number first_index + i of the stream (seed, purpose).
void NormalElements(const Queue& queue, void* x, FloatType type, int64_t n, uint64_t seed, uint32_t purpose,
                    uint64_t first_index, double stddev);

// out[0] += sum of x^2, through kSumBlocks partial sums.
inline constexpr int kSumBlocks = 1024;
template <typename T>
void SumSquaresElements(const Queue& queue, const T* x, int64_t n, double* partial, double* out);

}  // namespace cohort::runtime::COHORT_CUDA
