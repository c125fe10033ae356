// Matrix products of any shape and layout in f32 multiply-adds: tiles of 64 x 64, 16 of the inner dimension at a time, a
// thread 4 x 4 elements. The sum of an element runs over the inner dimension in order.
#include "runtime/ops/cuda/products.h"
#include "runtime/ops/cuda/ptx.h"
#include "runtime/ops/cuda/tiles.h"

namespace cohort::runtime::COHORT_CUDA {
namespace {

constexpr int kTile = 64, kDepth = 16, kThreads = 256;

// a (or b) elements [kTile, kDepth] of a tile into shared memory as [depth][row], zeros outside.
template <typename T>
__device__ __forceinline__ void LoadTile(const T* x, int64_t row_stride, int64_t depth_stride, int64_t rows,
                                         int64_t depth, float (&tile)[kDepth][kTile + 4]) {
  // Neighbouring threads along the dimension whose elements are neighbours.
  const bool along_depth = depth_stride == 1;
#pragma unroll
  for (int i = threadIdx.x; i < kTile * kDepth; i += kThreads) {
    const int row = along_depth ? i / kDepth : i % kTile, d = along_depth ? i % kDepth : i / kTile;
    tile[d][row] = row < rows && d < depth ? ToFloat(x[row * row_stride + d * depth_stride]) : 0.0f;
  }
}

template <typename T, typename O>
__global__ void __launch_bounds__(kThreads)
    PlainKernel(Product p, const T* a, const T* b, O* c, int64_t column_tiles) {
  __shared__ float as[kDepth][kTile + 4];
  __shared__ float bs[kDepth][kTile + 4];
  const int64_t row_tile = blockIdx.x / column_tiles, column = blockIdx.x % column_tiles * kTile;
  int64_t row = row_tile * kTile, rows = p.m, begin = 0, end = p.k;  // of a; the inner range
  if (p.grouping == Product::Groups::kRows) {
    const GroupTile tile = FindGroupTileByWarp(p.offsets, p.groups, row_tile, kTile);
    if (tile.group < 0) return;
    row = p.offsets[tile.group] + tile.first;
    rows = p.offsets[tile.group + 1];
    b += tile.group * p.b_group;
  } else if (p.grouping == Product::Groups::kSums) {
    begin = p.offsets[blockIdx.y];
    end = p.offsets[blockIdx.y + 1];
    c += blockIdx.y * p.c_group;
  }
  const int ty = threadIdx.x / 16, tx = threadIdx.x % 16;
  float sum[4][4] = {};
  for (int64_t k = begin; k < end; k += kDepth) {
    LoadTile(a + row * p.a.row + k * p.a.column, p.a.row, p.a.column, rows - row, end - k, as);
    LoadTile(b + k * p.b.row + column * p.b.column, p.b.column, p.b.row, p.n - column, end - k, bs);
    __syncthreads();
#pragma unroll
    for (int d = 0; d < kDepth; ++d) {
      float x[4], y[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) x[i] = as[d][ty * 4 + i], y[i] = bs[d][tx * 4 + i];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j) sum[i][j] = __fmaf_rn(x[i], y[j], sum[i][j]);
      }
    }
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int64_t to_row = row + ty * 4 + i, to_column = column + tx * 4 + j;
      if (to_row >= rows || to_column >= p.n) continue;
      O& to = c[to_row * p.n + to_column];
      to = FromFloat<O>(p.accumulate ? ToFloat(to) + sum[i][j] : sum[i][j]);
    }
  }
}

}  // namespace

template <typename T, typename O>
void PlainProduct(const Queue& queue, const Product& p, const T* a, const T* b, O* c) {
  if (p.m == 0 || p.n == 0 || p.groups == 0) return;
  const int64_t row_tiles =
      p.grouping == Product::Groups::kRows ? MostGroupTiles(p.m, p.groups, kTile) : CeilDiv(p.m, kTile);
  const int64_t column_tiles = CeilDiv(p.n, kTile);
  const dim3 grid(static_cast<unsigned>(row_tiles * column_tiles),
                  static_cast<unsigned>(p.grouping == Product::Groups::kSums ? p.groups : 1));
  Launch(queue, PlainKernel<T, O>, grid, kThreads, 0, p, a, b, c, column_tiles);
}
template void PlainProduct(const Queue&, const Product&, const float*, const float*, float*);
template void PlainProduct(const Queue&, const Product&, const Bf16*, const Bf16*, float*);
template void PlainProduct(const Queue&, const Product&, const Bf16*, const Bf16*, Bf16*);

}  // namespace cohort::runtime::COHORT_CUDA
