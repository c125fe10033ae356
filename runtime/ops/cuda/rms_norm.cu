// RMSNorm (Zhang & Sennrich, 2019): a block a row. Each thread comes back to its own elements for the second pass, so
// they are in the first-level cache, and outputs may lie over inputs.
#include "runtime/ops/cuda/layers.h"
#include "runtime/ops/cuda/reduce.h"

namespace cohort::runtime::COHORT_CUDA {
namespace {

constexpr int kMostThreads = 512;

// Threads of a row's block: one a group of eight, whole warps.
int ThreadsFor(int64_t d) {
  return static_cast<int>(Least<int64_t>(kMostThreads, RoundUp(Most<int64_t>(1, CeilDiv(d, kGroup)), kWarp)));
}

__device__ __forceinline__ int CountAt(int64_t i, int64_t d) {
  return static_cast<int>(d - i < kGroup ? d - i : kGroup);
}

template <typename T>
__global__ void __launch_bounds__(kMostThreads)
    RmsNormKernel(const T* x, const T* residual, const T* w, float eps, T* sum, T* y, float* rstd, int64_t d,
                  bool wide) {
  __shared__ float room[kWarp];
  const int64_t row = static_cast<int64_t>(blockIdx.x) * d, step = static_cast<int64_t>(blockDim.x) * kGroup;
  float squares = 0;
  for (int64_t i = threadIdx.x * kGroup; i < d; i += step) {
    const int count = CountAt(i, d);
    float a[kGroup];
    Load8(x + row + i, wide, count, a);
    if (residual != nullptr) {
      float b[kGroup];
      Load8(residual + row + i, wide, count, b);
      // The norm is of the sum as it is stored, rounded, so that the gradient sees the same numbers.
#pragma unroll
      for (int j = 0; j < kGroup; ++j) a[j] = ToFloat(FromFloat<T>(a[j] + b[j]));
      Store8(sum + row + i, wide, count, a);
    }
#pragma unroll
    for (int j = 0; j < kGroup; ++j) squares = __fmaf_rn(a[j], a[j], squares);
  }
  squares = BlockSum(squares, room);
  const float r = d == 0 ? 0.0f : 1.0f / sqrtf(squares / static_cast<float>(d) + eps);
  if (threadIdx.x == 0) rstd[blockIdx.x] = r;
  const T* from = residual != nullptr ? sum : x;
  for (int64_t i = threadIdx.x * kGroup; i < d; i += step) {
    const int count = CountAt(i, d);
    float a[kGroup], weight[kGroup];
    Load8(from + row + i, wide, count, a);
    Load8(w + i, wide, count, weight);
#pragma unroll
    for (int j = 0; j < kGroup; ++j) a[j] = a[j] * r * weight[j];
    Store8(y + row + i, wide, count, a);
  }
}

// With g = dy w and n = x rstd: dx = rstd (g - n mean(g n)).
template <typename T>
__global__ void __launch_bounds__(kMostThreads)
    RmsNormGradKernel(const T* dy, const T* x, const T* w, const float* rstd, const T* add, T* dx, int64_t d,
                      bool wide) {
  __shared__ float room[kWarp];
  const int64_t row = static_cast<int64_t>(blockIdx.x) * d, step = static_cast<int64_t>(blockDim.x) * kGroup;
  float products = 0;
  for (int64_t i = threadIdx.x * kGroup; i < d; i += step) {
    const int count = CountAt(i, d);
    float g[kGroup], a[kGroup], weight[kGroup];
    Load8(dy + row + i, wide, count, g);
    Load8(x + row + i, wide, count, a);
    Load8(w + i, wide, count, weight);
#pragma unroll
    for (int j = 0; j < kGroup; ++j) products = __fmaf_rn(g[j] * weight[j], a[j], products);
  }
  products = BlockSum(products, room);
  const float r = rstd[blockIdx.x];
  const float coefficient = -r * r * r * products / static_cast<float>(d);
  for (int64_t i = threadIdx.x * kGroup; i < d; i += step) {
    const int count = CountAt(i, d);
    float g[kGroup], a[kGroup], weight[kGroup], other[kGroup] = {};
    Load8(dy + row + i, wide, count, g);
    Load8(x + row + i, wide, count, a);
    Load8(w + i, wide, count, weight);
    if (add != nullptr) Load8(add + row + i, wide, count, other);
#pragma unroll
    for (int j = 0; j < kGroup; ++j)
      g[j] = __fmaf_rn(g[j] * weight[j], r, __fmaf_rn(a[j], coefficient, other[j]));
    Store8(dx + row + i, wide, count, g);
  }
}

constexpr int kColumnThreads = 128;

// partial[chunk, i] = the sum of the chunk's rows, in order.
template <typename T>
__global__ void __launch_bounds__(kColumnThreads)
    WeightGradPartial(const T* dy, const T* x, const float* rstd, float* partial, int64_t rows, int64_t d,
                      bool wide) {
  const int64_t i = (static_cast<int64_t>(blockIdx.x) * kColumnThreads + threadIdx.x) * kGroup;
  if (i >= d) return;
  const int64_t chunk = NormChunkRows(rows), begin = blockIdx.y * chunk, end = Least(rows, begin + chunk);
  const int count = CountAt(i, d);
  float sum[kGroup] = {};
#pragma unroll 4
  for (int64_t t = begin; t < end; ++t) {
    float g[kGroup], a[kGroup];
    Load8(dy + t * d + i, wide, count, g);
    Load8(x + t * d + i, wide, count, a);
    const float r = rstd[t];
#pragma unroll
    for (int j = 0; j < kGroup; ++j) sum[j] = __fmaf_rn(g[j] * a[j], r, sum[j]);
  }
  for (int j = 0; j < count; ++j) partial[blockIdx.y * d + i + j] = sum[j];
}

// dw[i] += the partial sums, in order.
__global__ void __launch_bounds__(kColumnThreads)
    WeightGradTotal(const float* partial, float* dw, int64_t chunks, int64_t d) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kColumnThreads + threadIdx.x;
  if (i >= d) return;
  float total = 0;
#pragma unroll 8
  for (int64_t c = 0; c < chunks; ++c) total += partial[c * d + i];
  dw[i] += total;
}

}  // namespace

template <typename T>
void RmsNormRows(const Queue& queue, const T* x, const T* residual, const T* w, float eps, T* sum, T* y,
                 float* rstd, int64_t rows, int64_t d) {
  Launch(queue, RmsNormKernel<T>, static_cast<unsigned>(rows), ThreadsFor(d), 0, x, residual, w, eps, sum, y,
         rstd, d, WideGroups(d, x, residual, w, sum, y));
}
template void RmsNormRows(const Queue&, const float*, const float*, const float*, float, float*, float*,
                          float*, int64_t, int64_t);
template void RmsNormRows(const Queue&, const Bf16*, const Bf16*, const Bf16*, float, Bf16*, Bf16*, float*,
                          int64_t, int64_t);

template <typename T>
void RmsNormGradRows(const Queue& queue, const T* dy, const T* x, const T* w, const float* rstd, const T* add,
                     T* dx, int64_t rows, int64_t d) {
  if (d == 0) return;
  Launch(queue, RmsNormGradKernel<T>, static_cast<unsigned>(rows), ThreadsFor(d), 0, dy, x, w, rstd, add, dx,
         d, WideGroups(d, dy, x, w, add, dx));
}
template void RmsNormGradRows(const Queue&, const float*, const float*, const float*, const float*,
                              const float*, float*, int64_t, int64_t);
template void RmsNormGradRows(const Queue&, const Bf16*, const Bf16*, const Bf16*, const float*, const Bf16*,
                              Bf16*, int64_t, int64_t);

template <typename T>
void RmsNormWeightGradRows(const Queue& queue, const T* dy, const T* x, const float* rstd, float* partial,
                           float* dw, int64_t rows, int64_t d) {
  const dim3 grid(static_cast<unsigned>(CeilDiv(CeilDiv(d, kGroup), kColumnThreads)),
                  static_cast<unsigned>(NormChunks(rows)));
  Launch(queue, WeightGradPartial<T>, grid, kColumnThreads, 0, dy, x, rstd, partial, rows, d,
         WideGroups(d, dy, x));
  Launch(queue, WeightGradTotal, static_cast<unsigned>(CeilDiv(d, kColumnThreads)), kColumnThreads, 0,
         partial, dw, NormChunks(rows), d);
}
template void RmsNormWeightGradRows(const Queue&, const float*, const float*, const float*, float*, float*,
                                    int64_t, int64_t);
template void RmsNormWeightGradRows(const Queue&, const Bf16*, const Bf16*, const float*, float*, float*,
                                    int64_t, int64_t);

}  // namespace cohort::runtime::COHORT_CUDA
