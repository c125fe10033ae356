// What the kernels of attention for Hopper share: tiles of blocks (warpgroup.h) and batches of products on them.
#pragma once

#include "runtime/ops/cuda/attention_tiles.h"
#include "runtime/ops/cuda/warpgroup.h"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL) || defined(COHORT_CUDA_EMULATED)
#define COHORT_WARPGROUPS 1
#endif

namespace cohort::runtime::COHORT_CUDA {

inline constexpr int kGroupThreads = 128;  // of a warpgroup
inline constexpr int kGroupRows = 64;      // of its products

// Rows [0, kRows), `stride` elements apart from `first` on, into blocks of 64 columns; zeros from `rows` on and from
// the heads' width on. A thread has one piece of 16 bytes of each of its rows, which are so far apart that all lie in
// one place of the swizzle: what a row costs is an addition, a comparison and the copy. A piece that is not there is
// read from nowhere, whatever its address.
template <int kWidth, int kRows, int kThreads>
__device__ __forceinline__ void CopyBlocks(const Bf16* first, int64_t stride, int64_t rows, int64_t width,
                                           char* tile) {
  constexpr int kChunks = kWidth / 8, kApart = kThreads / kChunks;
  static_assert(kThreads % kChunks == 0 && kApart % 8 == 0 && kRows % kApart == 0);
  const int chunk = static_cast<int>(threadIdx.x) % kChunks, row = static_cast<int>(threadIdx.x) / kChunks;
  const int there = chunk * 8 < width ? static_cast<int>(Least<int64_t>(rows, kRows)) - row : 0;
  const Bf16* from = first + row * stride + chunk * 8;
  char* to = tile + chunk / 8 * (kRows * 128) + Swizzled<8>(row, chunk % 8) * 16;
  const int64_t apart = kApart * stride;
#pragma unroll
  for (int i = 0; i < kRows / kApart; ++i) {
    CopyAsync16(to + i * kApart * 128, from, i * kApart < there ? 16 : 0);
    from += apart;
  }
}

// Where the dynamic shared memory has its first multiple of 1024.
__device__ __forceinline__ uint32_t FirstUnit() {
  return static_cast<uint32_t>(RoundUp(SharedAddress(SharedMemory()), kUnitBytes));
}

#if defined(COHORT_WARPGROUPS)

// Between exponentials, of which `sum` is a sum, and a WaitProducts for what runs beside them. ptxas takes a wait
// forward as far as nothing needs what is between, and did so to before all exponentials; but not over a branch, and
// this one needs them. It is never taken: `scale` is above zero, which ptxas does not know, while it knows that sums
// of exponentials are.
__device__ __forceinline__ void HoldWait(float sum, float scale) {
  if (__any_sync(kAllLanes, sum < -scale)) {
    WaitProducts<0>();
    CheckOnDevice(false);
  }
}

// c[64, 8 kTiles] = 64 rows from address a on of a tile of kRowsA rows, times those from b on of one of kRowsB.
template <int kWidth, int kRowsA, int kRowsB, int kTiles>
__device__ __forceinline__ void IssueRows(uint32_t a, uint32_t b, float (&c)[kTiles][4]) {
#pragma unroll
  for (int k = 0; k < kWidth / 16; ++k) {
    MultiplyAsync(c, Descriptor(a + k / 4 * (kRowsA * 128) + k % 4 * 32, 16, kUnitBytes),
                  Descriptor(b + k / 4 * (kRowsB * 128) + k % 4 * 32, 16, kUnitBytes), k > 0);
  }
}

// c[64, 8 kTiles] += p[64, kInner] times kInner rows from address b on of a tile of kRowsB.
template <int kInner, int kRowsB, int kTiles>
__device__ __forceinline__ void IssueInner(const uint32_t (&p)[kInner / 16][4], uint32_t b,
                                           float (&c)[kTiles][4]) {
#pragma unroll
  for (int k = 0; k < kInner / 16; ++k) {
    MultiplyAsync(c, p[k], Descriptor(b + k * 2 * kUnitBytes, kRowsB * 128, kUnitBytes));
  }
}

#endif  // COHORT_WARPGROUPS

// Accumulators, rounded, as the first operands of products over their columns.
template <int kTiles>
__device__ __forceinline__ void Pack(const float (&c)[kTiles][4], uint32_t (&p)[kTiles / 2][4]) {
#pragma unroll
  for (int k = 0; k < kTiles / 2; ++k) ToA(c[2 * k], c[2 * k + 1], p[k]);
}

}  // namespace cohort::runtime::COHORT_CUDA
