// What the tensor-core kernels of attention share: tiles of rows in shared memory, and products of fragments.
// A tile is [rows, kWidth] of bf16 with pieces exchanged as Swizzled says; columns from the heads' width on are zero.
#pragma once

#include "runtime/ops/cuda/attention.h"
#include "runtime/ops/cuda/ptx.h"
#include "runtime/ops/cuda/tiles.h"

namespace cohort::runtime::COHORT_CUDA {

inline constexpr float kLog2E = 1.4426950408889634f;
inline constexpr float kNoScore = -__builtin_inff();

// The narrowest tile for heads of this width: kernels exist for these.
__host__ __device__ constexpr int TileWidth(int64_t width) {
  return width <= 64 ? 64 : width <= 128 ? 128 : 256;
}

// Copies rows [0, kRows) whose first elements `at(row)` gives; zeros for rows from `rows` on.
template <int kWidth, int kRows, int kThreads, typename At>
__device__ __forceinline__ void CopyRows(const Bf16* x, int64_t rows, int64_t width, char* tile,
                                         const At& at) {
  constexpr int kChunks = kWidth / 8;
#pragma unroll
  for (int i = threadIdx.x; i < kRows * kChunks; i += kThreads) {
    const int row = i / kChunks, chunk = i % kChunks;
    const bool there = row < rows && chunk * 8 < width;
    CopyAsync16(tile + Swizzled<kChunks>(row, chunk) * 16, there ? x + at(row) + chunk * 8 : x,
                there ? 16 : 0);
  }
}

// The same of keys and of values, which lie in the same places of k and v: `at` is asked once for both.
template <int kWidth, int kRows, int kThreads, typename At>
__device__ __forceinline__ void CopyKeysAndValues(const Bf16* k, const Bf16* v, int64_t rows, int64_t width,
                                                  char* keys, char* values, const At& at) {
  constexpr int kChunks = kWidth / 8;
#pragma unroll
  for (int i = threadIdx.x; i < kRows * kChunks; i += kThreads) {
    const int row = i / kChunks, chunk = i % kChunks, to = Swizzled<kChunks>(row, chunk) * 16;
    const bool there = row < rows && chunk * 8 < width;
    const int64_t from = there ? at(row) + chunk * 8 : 0;
    CopyAsync16(keys + to, k + from, there ? 16 : 0);
    CopyAsync16(values + to, v + from, there ? 16 : 0);
  }
}

template <int kWidth>
__device__ __forceinline__ const char* In(const char* tile, Place place) {
  return tile + Swizzled<kWidth / 8>(place.row, place.chunk) * 16;
}

// c[16, kColumns] += rows [row, row + 16) of tile a times rows [column, ...) of tile b, transposed: over kWidth.
template <int kWidth, int kColumns>
__device__ __forceinline__ void MultiplyRows(const char* a, int row, const char* b, int column, int lane,
                                             float (&c)[kColumns / 8][4]) {
#pragma unroll
  for (int k = 0; k < kWidth; k += 16) {
    uint32_t as[4];
    LoadMatrices(In<kWidth>(a, PlaceOfA(lane, row, k / 8)), as);
#pragma unroll
    for (int j = 0; j < kColumns; j += 16) {
      uint32_t bs[4];
      LoadMatrices(In<kWidth>(b, PlaceOfB(lane, column + j, k / 8)), bs);
      Multiply16x8x16(c[j / 8], as, bs[0], bs[1]);
      Multiply16x8x16(c[j / 8 + 1], as, bs[2], bs[3]);
    }
  }
}

// The accumulators of two neighbouring 16 x 8 products, rounded, as the A of a product over their 16 columns: lanes hold
// the same rows and columns in both.
__device__ __forceinline__ void ToA(const float (&left)[4], const float (&right)[4], uint32_t (&a)[4]) {
  a[0] = PackBf16(left[0], left[1]);
  a[1] = PackBf16(left[2], left[3]);
  a[2] = PackBf16(right[0], right[1]);
  a[3] = PackBf16(right[2], right[3]);
}

// c[16, kWidth] += p[16, kInner] (accumulators) times rows [row, row + kInner) of tile b.
template <int kWidth, int kInner>
__device__ __forceinline__ void MultiplyInner(const float (&p)[kInner / 8][4], const char* b, int row,
                                              int lane, float (&c)[kWidth / 8][4]) {
#pragma unroll
  for (int k = 0; k < kInner; k += 16) {
    uint32_t as[4];
    ToA(p[k / 8], p[k / 8 + 1], as);
#pragma unroll
    for (int j = 0; j < kWidth; j += 16) {
      uint32_t bs[4];
      LoadMatricesTransposed(In<kWidth>(b, PlaceOfTransposedB(lane, row + k, j / 8)), bs);
      Multiply16x8x16(c[j / 8], as, bs[0], bs[1]);
      Multiply16x8x16(c[j / 8 + 1], as, bs[2], bs[3]);
    }
  }
}

// A row of an accumulator lies in four neighbouring lanes.
__device__ __forceinline__ float QuadMax(float x) {
  x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, 1));
  return fmaxf(x, __shfl_xor_sync(kAllLanes, x, 2));
}
__device__ __forceinline__ float QuadSum(float x) {
  x += __shfl_xor_sync(kAllLanes, x, 1);
  return x + __shfl_xor_sync(kAllLanes, x, 2);
}

// Two neighbours of a row of an output: bf16, or f32, overwritten or added to.
__device__ __forceinline__ void StoreTwo(void* to, int64_t at, bool is_float, bool add, float x, float y) {
  if (is_float) {
    float2* pair = reinterpret_cast<float2*>(static_cast<float*>(to) + at);
    const float2 before = add ? *pair : make_float2(0, 0);
    *pair = make_float2(before.x + x, before.y + y);
  } else {
    *reinterpret_cast<uint32_t*>(static_cast<Bf16*>(to) + at) = PackBf16(x, y);
  }
}

}  // namespace cohort::runtime::COHORT_CUDA
