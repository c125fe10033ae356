// Rows of tokens that come back from experts, weighted and added, and the gradients of that.
#include "runtime/ops/cuda/moe.h"
#include "runtime/ops/cuda/reduce.h"

namespace cohort::runtime::COHORT_CUDA {
namespace {

constexpr int kThreads = 128;

// A block a token (and 1024 columns: blockIdx.y): y[t] = sum_j weights[t, j] x[places[t, j]] in the order of j.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    CombineKernel(const T* x, int64_t rows, const int32_t* places, const float* weights, T* y, int64_t k,
                  int64_t width, bool wide) {
  const int64_t t = blockIdx.x, i = (static_cast<int64_t>(blockIdx.y) * kThreads + threadIdx.x) * kGroup;
  if (i >= width) return;
  const int count = static_cast<int>(width - i < kGroup ? width - i : kGroup);
  float sum[kGroup] = {};
  for (int64_t j = t * k; j < (t + 1) * k; ++j) {
    const int32_t place = places[j];
    CheckOnDevice(place < rows);
    if (place < 0) continue;
    const float weight = weights != nullptr ? weights[j] : 1.0f;
    float a[kGroup];
    Load8(x + place * width + i, wide, count, a);
#pragma unroll
    for (int e = 0; e < kGroup; ++e) sum[e] = __fmaf_rn(weight, a[e], sum[e]);
  }
  Store8(y + t * width + i, wide, count, sum);
}

// A warp a choice: its row of dx, and dy . x.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    CombineGradKernel(const T* dy, const T* x, const int32_t* places, const float* weights, T* dx,
                      int64_t rows, float* dweights, int64_t choices, int64_t k, int64_t width, bool wide) {
  const int64_t j = static_cast<int64_t>(blockIdx.x) * (kThreads / kWarp) + threadIdx.x / kWarp;
  const int lane = threadIdx.x % kWarp;
  if (j >= choices) return;
  const int64_t place = places[j];
  CheckOnDevice(place < rows);
  if (place < 0) {
    if (dweights != nullptr && lane == 0) dweights[j] = 0;
    return;
  }
  const T* grad = dy + j / k * width;
  const float weight = weights != nullptr ? weights[j] : 1.0f;
  float dot = 0;
  for (int64_t i = lane * kGroup; i < width; i += kWarp * kGroup) {
    const int count = static_cast<int>(width - i < kGroup ? width - i : kGroup);
    float g[kGroup], a[kGroup];
    Load8(grad + i, wide, count, g);
    if (dweights != nullptr) {
      Load8(x + place * width + i, wide, count, a);
#pragma unroll
      for (int e = 0; e < kGroup; ++e) dot = __fmaf_rn(g[e], a[e], dot);
    }
#pragma unroll
    for (int e = 0; e < kGroup; ++e) g[e] *= weight;
    Store8(dx + place * width + i, wide, count, g);
  }
  if (dweights == nullptr) return;
  dot = WarpSum(dot);
  if (lane == 0) dweights[j] = dot;
}

}  // namespace

template <typename T>
void CombineTokenRows(const Queue& queue, const T* x, int64_t rows, const int32_t* places,
                      const float* weights, T* y, int64_t tokens, int64_t k, int64_t width) {
  const dim3 grid(static_cast<unsigned>(tokens), static_cast<unsigned>(CeilDiv(width, kThreads * kGroup)));
  Launch(queue, CombineKernel<T>, grid, kThreads, 0, x, rows, places, weights, y, k, width,
         WideGroups(width, x, y));
}
template void CombineTokenRows(const Queue&, const float*, int64_t, const int32_t*, const float*, float*,
                               int64_t, int64_t, int64_t);
template void CombineTokenRows(const Queue&, const Bf16*, int64_t, const int32_t*, const float*, Bf16*,
                               int64_t, int64_t, int64_t);

template <typename T>
void CombineGradRows(const Queue& queue, const T* dy, const T* x, const int32_t* places, const float* weights,
                     T* dx, int64_t rows, float* dweights, int64_t tokens, int64_t k, int64_t width) {
  const int64_t choices = tokens * k;
  Launch(queue, CombineGradKernel<T>, static_cast<unsigned>(CeilDiv(choices, kThreads / kWarp)), kThreads, 0,
         dy, x, places, weights, dx, rows, dweights, choices, k, width, WideGroups(width, dy, x, dx));
}
template void CombineGradRows(const Queue&, const float*, const float*, const int32_t*, const float*, float*,
                              int64_t, float*, int64_t, int64_t, int64_t);
template void CombineGradRows(const Queue&, const Bf16*, const Bf16*, const int32_t*, const float*, Bf16*,
                              int64_t, float*, int64_t, int64_t, int64_t);

}  // namespace cohort::runtime::COHORT_CUDA
