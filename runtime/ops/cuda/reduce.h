// Sums and maxima over a warp and over a block, in an order that only the sizes decide: butterflies over lanes, then
// over warps. Every thread of the block calls, and every thread gets the result.
#pragma once

#include "runtime/ops/cuda/language.h"

namespace cohort::runtime::COHORT_CUDA {

template <typename T>
__device__ __forceinline__ T WarpSum(T x) {
#pragma unroll
  for (int step = kWarp / 2; step > 0; step /= 2) x += __shfl_xor_sync(kAllLanes, x, step);
  return x;
}
__device__ __forceinline__ float WarpMax(float x) {
#pragma unroll
  for (int step = kWarp / 2; step > 0; step /= 2) x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, step));
  return x;
}

// `room` has 32 elements of shared memory, which the next reduction may use at once: there is a barrier before and
// after. Blocks are whole warps, 1024 threads at most.
template <typename T>
__device__ __forceinline__ T BlockSum(T x, T* room) {
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp, warps = blockDim.x / kWarp;
  x = WarpSum(x);
  __syncthreads();
  if (lane == 0) room[warp] = x;
  __syncthreads();
  return WarpSum(lane < warps ? room[lane] : T(0));
}
__device__ __forceinline__ float BlockMax(float x, float* room) {
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp, warps = blockDim.x / kWarp;
  x = WarpMax(x);
  __syncthreads();
  if (lane == 0) room[warp] = x;
  __syncthreads();
  return WarpMax(room[lane < warps ? lane : 0]);
}

}  // namespace cohort::runtime::COHORT_CUDA
