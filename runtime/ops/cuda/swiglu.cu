// SwiGLU (Shazeer, 2020) and its gradients, elementwise.
#include "runtime/ops/cuda/elementwise.h"
#include "runtime/ops/cuda/for_groups.h"

namespace cohort::runtime::COHORT_CUDA {
namespace {

// exp(-g) is +inf far below zero, and what is divided by it 0.
__device__ __forceinline__ float Sigmoid(float g) { return 1.0f / (1.0f + expf(-g)); }

template <typename T>
struct SwiGluGroups {
  const T *gate, *up;
  T* y;
  __device__ void operator()(int64_t i, bool wide, int count) const {
    float g[kGroup], u[kGroup];
    Load8(gate + i, wide, count, g);
    Load8(up + i, wide, count, u);
#pragma unroll
    for (int j = 0; j < kGroup; ++j) g[j] = g[j] / (1.0f + expf(-g[j])) * u[j];
    Store8(y + i, wide, count, g);
  }
};

// silu'(g) = s (1 + g (1 - s)), s the sigmoid of g. All inputs are read before an output is written.
template <typename T>
struct SwiGluGradGroups {
  const T *dy, *gate, *up;
  T *dgate, *dup;
  __device__ void operator()(int64_t i, bool wide, int count) const {
    float d[kGroup], g[kGroup], u[kGroup];
    Load8(dy + i, wide, count, d);
    Load8(gate + i, wide, count, g);
    Load8(up + i, wide, count, u);
#pragma unroll
    for (int j = 0; j < kGroup; ++j) {
      const float s = Sigmoid(g[j]);
      const float slope = s * __fmaf_rn(g[j], 1.0f - s, 1.0f);
      const float to_up = d[j] * (g[j] * s);
      g[j] = d[j] * u[j] * slope;
      u[j] = to_up;
    }
    Store8(dgate + i, wide, count, g);
    Store8(dup + i, wide, count, u);
  }
};

}  // namespace

template <typename T>
void SwiGluElements(const Queue& queue, const T* gate, const T* up, T* y, int64_t n) {
  LaunchGroups(queue, SwiGluGroups<T>{gate, up, y}, n, gate, up, y);
}
template void SwiGluElements(const Queue&, const float*, const float*, float*, int64_t);
template void SwiGluElements(const Queue&, const Bf16*, const Bf16*, Bf16*, int64_t);

template <typename T>
void SwiGluGradElements(const Queue& queue, const T* dy, const T* gate, const T* up, T* dgate, T* dup,
                        int64_t n) {
  LaunchGroups(queue, SwiGluGradGroups<T>{dy, gate, up, dgate, dup}, n, dy, gate, up, dgate, dup);
}
template void SwiGluGradElements(const Queue&, const float*, const float*, const float*, float*, float*,
                                 int64_t);
template void SwiGluGradElements(const Queue&, const Bf16*, const Bf16*, const Bf16*, Bf16*, Bf16*, int64_t);

}  // namespace cohort::runtime::COHORT_CUDA
