// What attention needs row by row: how many keys a query sees, the products of outputs and their gradients, and merging
// the outputs of parts.
#include "runtime/ops/cuda/attention.h"
#include "runtime/ops/cuda/for_groups.h"
#include "runtime/ops/cuda/reduce.h"

namespace cohort::runtime::COHORT_CUDA {
namespace {

constexpr int kThreads = 128, kRows = kThreads / kWarp;
constexpr float kNothing = -__builtin_inff();

// The sequence of row t: the first whose end lies beyond it.
__device__ __forceinline__ int64_t SequenceOfRow(const int32_t* offsets, int64_t sequences, int64_t t) {
  int64_t low = 0, high = sequences;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (offsets[middle + 1] > t) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return low;
}

// Positions ascend on both sides, which is looked at on the way.
struct SeenBody {
  AttentionCall call;
  const int32_t *q_positions, *k_positions;
  int32_t* seen;
  __device__ void operator()(int64_t t) const {
    const int64_t s = SequenceOfRow(call.q_offsets, call.sequences, t);
    CheckOnDevice(s < call.sequences);
    CheckOnDevice(t == call.q_offsets[s] || q_positions[t - 1] <= q_positions[t]);
    const int64_t begin = call.k_offsets[s];
    int64_t low = begin, high = call.k_offsets[s + 1];  // the first key beyond t's position
    while (low < high) {
      const int64_t middle = (low + high) / 2;
      if (k_positions[middle] > q_positions[t]) {
        high = middle;
      } else {
        low = middle + 1;
      }
    }
    seen[t] = static_cast<int32_t>(low - begin);
  }
};
struct AscendBody {
  AttentionCall call;
  const int32_t* k_positions;
  __device__ void operator()(int64_t j) const {
    const int64_t s = SequenceOfRow(call.k_offsets, call.sequences, j);
    CheckOnDevice(s < call.sequences);
    CheckOnDevice(j == call.k_offsets[s] || k_positions[j - 1] <= k_positions[j]);
  }
};

// A warp a (token, head).
template <typename T>
__global__ void __launch_bounds__(kThreads)
    DeltaKernel(const T* dy, const void* y, bool y_is_float, float* delta, int64_t tokens, int64_t heads,
                int64_t width, bool wide) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kRows + threadIdx.x / kWarp;
  const int lane = threadIdx.x % kWarp;
  if (row >= tokens * heads) return;
  float sum = 0;
  for (int64_t i = lane * kGroup; i < width; i += kWarp * kGroup) {
    const int count = static_cast<int>(width - i < kGroup ? width - i : kGroup);
    const int64_t at = row * width + i;
    float grad[kGroup], out[kGroup];
    Load8(dy + at, wide, count, grad);
    if (y_is_float) {
      Load8(static_cast<const float*>(y) + at, wide, count, out);
    } else {
      Load8(static_cast<const T*>(y) + at, wide, count, out);
    }
#pragma unroll
    for (int j = 0; j < kGroup; ++j) sum = __fmaf_rn(grad[j], out[j], sum);
  }
  sum = WarpSum(sum);
  if (lane == 0) delta[row % heads * tokens + row / heads] = sum;
}

// Outputs weighted by exp(lse) (Liu et al., 2023).
template <typename P, typename T>
__global__ void __launch_bounds__(kThreads)
    MergeKernel(const P* y_part, const float* lse_part, T* y, float* lse, int64_t tokens, int64_t heads,
                int64_t width) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kRows + threadIdx.x / kWarp;
  const int lane = threadIdx.x % kWarp;
  if (row >= tokens * heads) return;
  const int64_t at = row % heads * tokens + row / heads;
  const float theirs = lse_part[at], ours = lse[at];
  __syncwarp();  // all have read lse, which the first lane writes
  if (theirs == kNothing) return;
  const float top = fmaxf(theirs, ours);
  const float a = expf(theirs - top), b = expf(ours - top), weight = 1.0f / (a + b);
  for (int64_t i = row * width + lane; i < (row + 1) * width; i += kWarp) {
    y[i] = FromFloat<T>(__fmaf_rn(ToFloat(y_part[i]), a * weight, ToFloat(y[i]) * (b * weight)));
  }
  if (lane == 0) lse[at] = top + logf(a + b);
}

}  // namespace

void CountSeen(const Queue& queue, const AttentionCall& call, const int32_t* q_positions,
               const int32_t* k_positions, int32_t* seen) {
  LaunchEach(queue, SeenBody{call, q_positions, k_positions, seen}, call.tokens);
  LaunchEach(queue, AscendBody{call, k_positions}, call.keys);
}

template <typename T>
void DeltaRows(const Queue& queue, const T* dy, const void* y, bool y_is_float, float* delta, int64_t tokens,
               int64_t heads, int64_t width) {
  Launch(queue, DeltaKernel<T>, static_cast<unsigned>(CeilDiv(tokens * heads, kRows)), kThreads, 0, dy, y,
         y_is_float, delta, tokens, heads, width, width % kGroup == 0 && Aligned16(dy) && Aligned16(y));
}
template void DeltaRows(const Queue&, const float*, const void*, bool, float*, int64_t, int64_t, int64_t);
template void DeltaRows(const Queue&, const Bf16*, const void*, bool, float*, int64_t, int64_t, int64_t);

template <typename P, typename T>
void MergeRows(const Queue& queue, const P* y_part, const float* lse_part, T* y, float* lse, int64_t tokens,
               int64_t heads, int64_t width) {
  Launch(queue, MergeKernel<P, T>, static_cast<unsigned>(CeilDiv(tokens * heads, kRows)), kThreads, 0, y_part,
         lse_part, y, lse, tokens, heads, width);
}
template void MergeRows(const Queue&, const float*, const float*, float*, float*, int64_t, int64_t, int64_t);
template void MergeRows(const Queue&, const float*, const float*, Bf16*, float*, int64_t, int64_t, int64_t);
template void MergeRows(const Queue&, const Bf16*, const float*, float*, float*, int64_t, int64_t, int64_t);
template void MergeRows(const Queue&, const Bf16*, const float*, Bf16*, float*, int64_t, int64_t, int64_t);

}  // namespace cohort::runtime::COHORT_CUDA
