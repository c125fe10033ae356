// The arithmetic of tiles in shared memory and of rows divided into tiles: plain functions that tests call on the host.
#pragma once

#include "runtime/ops/cuda/language.h"

namespace cohort::runtime::COHORT_CUDA {

// ---- bf16 tiles in shared memory ----
// A row is kChunks pieces of 16 bytes (8 elements). ldmatrix reads the same piece of eight neighbouring rows at a time;
// the pieces of a row are exchanged by the row's number so that these eight lie in eight different groups of four banks
// (32 banks of 4 bytes: a 128-byte line has 8 pieces). Where the piece `chunk` of row `row` lies, in pieces:
template <int kChunks>
__host__ __device__ constexpr int Swizzled(int row, int chunk) {
  static_assert(kChunks == 4 || kChunks % 8 == 0, "rows of 64 bytes, or of whole lines");
  return row * kChunks + (kChunks == 4 ? chunk ^ (row >> 1 & 3) : chunk ^ (row & 7));
}

// What row and piece a lane names to ldmatrix, for fragments of mma.m16n8k16 (ptx.h). `row` and `chunk` are those of the
// fragments' first element.
struct Place {
  int row, chunk;
};
// A [16 rows, 16 k] of a tile whose rows run along k: a[0..3] are (rows 0-7, k 0-7), (8-15, 0-7), (0-7, 8-15), (8-15,
// 8-15).
__host__ __device__ constexpr Place PlaceOfA(int lane, int row, int chunk) {
  return {row + (lane & 15), chunk + (lane >> 4)};
}
// A of a tile [k, rows] (read transposed).
__host__ __device__ constexpr Place PlaceOfTransposedA(int lane, int k, int chunk) {
  return {k + (lane & 7) + (lane >> 4) * 8, chunk + (lane >> 3 & 1)};
}
// Two B [16 k, 8 columns] side by side, of a tile whose rows are the columns and run along k: r[0], r[1] are b0, b1 of
// the first eight columns, r[2], r[3] of the next.
__host__ __device__ constexpr Place PlaceOfB(int lane, int column, int chunk) {
  return {column + (lane & 7) + (lane >> 4) * 8, chunk + (lane >> 3 & 1)};
}
// The same of a tile [k, columns] (read transposed).
__host__ __device__ constexpr Place PlaceOfTransposedB(int lane, int k, int chunk) {
  return {k + (lane & 15), chunk + (lane >> 4)};
}

// ---- rows in groups ----
// Group g has the rows [offsets[g], offsets[g + 1]) and as many tiles as those need; tiles are numbered group after
// group. At most as many in all:
__host__ __device__ constexpr int64_t MostGroupTiles(int64_t rows, int64_t groups, int64_t tile_rows) {
  return rows / tile_rows + groups;
}
struct GroupTile {
  int64_t group = -1;  // -1: there is no such tile
  int64_t first = 0;   // its first row within the group
};
// Tile `index`, given ends[g] = the number of tiles of groups 0..g.
__host__ __device__ constexpr GroupTile FindGroupTile(const int32_t* ends, int64_t groups, int64_t index,
                                                      int64_t tile_rows) {
  int64_t low = 0, high = groups;  // the first group with ends > index
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (ends[middle] > index) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  if (low == groups) return {};
  return {low, (index - (low > 0 ? ends[low - 1] : 0)) * tile_rows};
}

// The same from the offsets alone, for a warp whose lanes all call: 32 groups a step.
__device__ __forceinline__ GroupTile FindGroupTileByWarp(const int32_t* offsets, int64_t groups,
                                                         int64_t index, int64_t tile_rows) {
  const int lane = threadIdx.x % kWarp;
  int64_t before = 0;
  for (int64_t base = 0; base < groups; base += kWarp) {
    const int64_t g = base + lane;
    const int tiles = g < groups ? static_cast<int>(CeilDiv(offsets[g + 1] - offsets[g], tile_rows)) : 0;
    int scan = tiles;  // inclusive
#pragma unroll
    for (int step = 1; step < kWarp; step *= 2) {
      const int below = __shfl_up_sync(kAllLanes, scan, step);
      if (lane >= step) scan += below;
    }
    const unsigned beyond = __ballot_sync(kAllLanes, before + scan > index);
    if (beyond != 0) {
      const int found = __ffs(beyond) - 1;
      const int scan_found = __shfl_sync(kAllLanes, scan, found),
                tiles_found = __shfl_sync(kAllLanes, tiles, found);
      return {base + found, (index - before - (scan_found - tiles_found)) * tile_rows};
    }
    before += __shfl_sync(kAllLanes, scan, kWarp - 1);
  }
  return {};
}

// Fills ends (as above) from offsets; a warp's lanes all call, and see the result after a barrier.
__device__ __forceinline__ void CountGroupTiles(const int32_t* offsets, int64_t groups, int64_t tile_rows,
                                                int32_t* ends) {
  const int lane = threadIdx.x % kWarp;
  int before = 0;
  for (int64_t base = 0; base < groups; base += kWarp) {
    const int64_t g = base + lane;
    int scan = g < groups ? static_cast<int>(CeilDiv(offsets[g + 1] - offsets[g], tile_rows)) : 0;
#pragma unroll
    for (int step = 1; step < kWarp; step *= 2) {
      const int below = __shfl_up_sync(kAllLanes, scan, step);
      if (lane >= step) scan += below;
    }
    if (g < groups) ends[g] = before + scan;
    before += __shfl_sync(kAllLanes, scan, kWarp - 1);
  }
}

// ---- a range divided into parts ----
struct Range {
  int64_t begin, end;
};
// Part `part` of [0, size) cut into `parts` runs of whole units (the last ones may be empty).
__host__ __device__ constexpr Range PartOf(int64_t size, int64_t parts, int64_t part, int64_t unit) {
  const int64_t share = RoundUp(CeilDiv(size, parts), unit);
  const int64_t begin = Least(size, part * share);
  return {begin, Least(size, begin + share)};
}

}  // namespace cohort::runtime::COHORT_CUDA
