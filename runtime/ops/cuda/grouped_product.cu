// Products of groups of rows with a matrix each (experts) in bf16 on tensor cores, for sm_80 and later: tiles of 128 x
// 128, 32 of the inner dimension a stage, four stages of asynchronous copies (cp.async), fragments by ldmatrix, mma.sync.
//
// The blocks stay: as many as the device runs at once, each taking every so manieth tile. How many tiles there are and
// whose they are is read from the offsets on the device; the host knows the number of rows only.
#include "runtime/ops/cuda/products.h"
#include "runtime/ops/cuda/ptx.h"
#include "runtime/ops/cuda/tiles.h"

namespace cohort::runtime::COHORT_CUDA {
namespace {

constexpr int kTile = 128;  // rows and columns of a tile of c
constexpr int kDepth = 32;  // of a stage
constexpr int kStages = 4;
constexpr int kThreads = 256;  // 8 warps: 2 along rows x 4 along columns, 64 x 32 each
constexpr int kOperandBytes = kTile * kDepth * 2;
constexpr int kStageBytes = 2 * kOperandBytes;
constexpr int kWarpRows = 64, kWarpColumns = 32;

// An operand's tile lies in shared memory as it does in global memory: kAlong: [128, 32], rows along the inner
// dimension; otherwise [32, 128].
template <bool kAlong>
constexpr int kChunksOf = kAlong ? kDepth / 8 : kTile / 8;

// Copies [outer, inner] of a matrix into a stage: outer rows from `outer` on, `inner_begin` on, zeros from the ends on.
// All counts are multiples of 8 along the contiguous dimension, so that a piece is whole or not there.
template <bool kAlong>
__device__ __forceinline__ void CopyTile(const Bf16* x, int64_t stride, int64_t outer, int64_t outer_end,
                                         int64_t inner, int64_t inner_end, char* to) {
  constexpr int kChunks = kChunksOf<kAlong>, kRows = kAlong ? kTile : kDepth;
  // Rows of the tile are outer (kAlong) or inner indices; pieces the others.
  const int64_t row0 = kAlong ? outer : inner, row_end = kAlong ? outer_end : inner_end;
  const int64_t piece0 = kAlong ? inner : outer, piece_end = kAlong ? inner_end : outer_end;
#pragma unroll
  for (int i = threadIdx.x; i < kRows * kChunks; i += kThreads) {
    const int row = i / kChunks, chunk = i % kChunks;
    const bool there = row0 + row < row_end && piece0 + chunk * 8 < piece_end;
    const Bf16* from = there ? x + (row0 + row) * stride + piece0 + chunk * 8 : x;
    CopyAsync16(to + Swizzled<kChunks>(row, chunk) * 16, from, there ? 16 : 0);
  }
}

// c[64, 32] of this warp += its rows of a's stage times its columns of b's.
template <bool kAAlong, bool kBAlong>
__device__ __forceinline__ void MultiplyStage(const char* a, const char* b, int row, int column, int lane,
                                              float (&c)[4][4][4]) {
#pragma unroll
  for (int k = 0; k < kDepth; k += 16) {
    uint32_t as[4][4], bs[2][4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if constexpr (kAAlong) {
        const Place place = PlaceOfA(lane, row + i * 16, k / 8);
        LoadMatrices(a + Swizzled<kChunksOf<true>>(place.row, place.chunk) * 16, as[i]);
      } else {
        const Place place = PlaceOfTransposedA(lane, k, (row + i * 16) / 8);
        LoadMatricesTransposed(a + Swizzled<kChunksOf<false>>(place.row, place.chunk) * 16, as[i]);
      }
    }
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      if constexpr (kBAlong) {
        const Place place = PlaceOfB(lane, column + j * 16, k / 8);
        LoadMatrices(b + Swizzled<kChunksOf<true>>(place.row, place.chunk) * 16, bs[j]);
      } else {
        const Place place = PlaceOfTransposedB(lane, k, (column + j * 16) / 8);
        LoadMatricesTransposed(b + Swizzled<kChunksOf<false>>(place.row, place.chunk) * 16, bs[j]);
      }
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j)
        Multiply16x8x16(c[i][j], as[i], bs[j / 2][j % 2 * 2], bs[j / 2][j % 2 * 2 + 1]);
    }
  }
}

__device__ __forceinline__ void StorePair(Bf16* to, float x, float y) {
  *reinterpret_cast<uint32_t*>(to) = PackBf16(x, y);
}
__device__ __forceinline__ void AddPair(float* to, float x, float y) {
  float2 pair = *reinterpret_cast<float2*>(to);
  pair.x += x;
  pair.y += y;
  *reinterpret_cast<float2*>(to) = pair;
}

// kRows groups: kAAlong, c bf16. kSums: neither along, c f32 and added to.
template <bool kAAlong, bool kBAlong>
__global__ void __launch_bounds__(kThreads, 2)
    GroupedKernel(Product p, const Bf16* a, const Bf16* b, void* c) {
  char* stages = SharedMemory();
  int32_t* ends = reinterpret_cast<int32_t*>(stages + kStages * kStageBytes);
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const int row = warp / 4 * kWarpRows, column = warp % 4 * kWarpColumns;
  const int64_t column_tiles = CeilDiv(p.n, kTile), row_tiles = CeilDiv(p.m, kTile);
  int64_t tiles = row_tiles * column_tiles * p.groups;
  if constexpr (kAAlong) {
    if (warp == 0) CountGroupTiles(p.offsets, p.groups, kTile, ends);
    __syncthreads();
    tiles = ends[p.groups - 1] * column_tiles;
  }
  for (int64_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    int64_t group, first_row, row_end, inner = 0, inner_end = p.k, first_column;
    if constexpr (kAAlong) {
      // A group's row tiles meet a column tile of its matrix one after another, which so comes from the cache.
      const GroupTile found = FindGroupTile(ends, p.groups, tile / column_tiles, kTile);
      group = found.group;
      const int64_t before = group > 0 ? ends[group - 1] : 0, of_group = ends[group] - before;
      const int64_t within = tile - before * column_tiles;
      first_row = p.offsets[group] + within % of_group * kTile;
      row_end = p.offsets[group + 1];
      first_column = within / of_group * kTile;
    } else {
      group = tile / (row_tiles * column_tiles);
      const int64_t within = tile % (row_tiles * column_tiles);
      first_row = within % row_tiles * kTile;
      row_end = p.m;
      first_column = within / row_tiles * kTile;
      inner = p.offsets[group];
      inner_end = p.offsets[group + 1];
    }
    const Bf16* of_b = b + (kAAlong ? group * p.b_group : 0);
    const int64_t a_stride = kAAlong ? p.a.row : p.a.column, b_stride = kBAlong ? p.b.column : p.b.row;
    const int64_t steps = CeilDiv(inner_end - inner, kDepth);
    const auto copy = [&](int64_t step) {
      if (step < steps) {
        char* stage = stages + step % kStages * kStageBytes;
        const int64_t k = inner + step * kDepth;
        CopyTile<kAAlong>(a, a_stride, first_row, row_end, k, inner_end, stage);
        CopyTile<kBAlong>(of_b, b_stride, first_column, p.n, k, inner_end, stage + kOperandBytes);
      }
      CommitCopies();  // an empty group where there is nothing left, so that the count below holds
    };
    float sums[4][4][4] = {};
    for (int64_t step = 0; step < kStages - 1; ++step) copy(step);
    for (int64_t step = 0; step < steps; ++step) {
      WaitCopies<kStages - 2>();
      __syncthreads();  // the stage is there for all, and all have read the one that is copied into next
      copy(step + kStages - 1);
      const char* stage = stages + step % kStages * kStageBytes;
      MultiplyStage<kAAlong, kBAlong>(stage, stage + kOperandBytes, row, column, lane, sums);
    }
    WaitCopies<0>();
    __syncthreads();  // before the next tile's copies
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int64_t to_column = first_column + column + j * 8 + lane % 4 * 2;
        if (to_column >= p.n) continue;  // n is even: both of a pair are there
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int64_t to_row = first_row + row + i * 16 + half * 8 + lane / 4;
          if (to_row >= row_end) continue;
          const float x = sums[i][j][2 * half], y = sums[i][j][2 * half + 1];
          if constexpr (kAAlong) {
            StorePair(static_cast<Bf16*>(c) + to_row * p.n + to_column, x, y);
          } else {
            AddPair(static_cast<float*>(c) + group * p.c_group + to_row * p.n + to_column, x, y);
          }
        }
      }
    }
  }
}

template <bool kAAlong, bool kBAlong>
void LaunchGrouped(const Queue& queue, const Product& p, const Bf16* a, const Bf16* b, void* c) {
  const size_t shared = kStages * kStageBytes + static_cast<size_t>(p.groups) * sizeof(int32_t);
  const int64_t most = kAAlong ? MostGroupTiles(p.m, p.groups, kTile) * CeilDiv(p.n, kTile)
                               : CeilDiv(p.m, kTile) * CeilDiv(p.n, kTile) * p.groups;
  const int64_t blocks = Least<int64_t>(most, 2 * queue.multiprocessors);
  Launch(queue, GroupedKernel<kAAlong, kBAlong>, static_cast<unsigned>(blocks), kThreads, shared, p, a, b, c);
}

}  // namespace

bool GroupedProductTakes(const Product& p, const void* a, const void* b, const void* c, size_t output_bytes) {
  const bool rows = p.grouping == Product::Groups::kRows;
  // What runs along the contiguous dimension must be whole pieces: k of a, k or n of b; for sums m and n.
  const bool whole = (rows ? p.k % 8 == 0 : p.m % 8 == 0) && p.n % 8 == 0 && p.b_group % 8 == 0;
  const size_t shared = kStages * kStageBytes + static_cast<size_t>(p.groups) * sizeof(int32_t);
  return whole && Aligned16(a) && Aligned16(b) && Aligned16(c) && shared <= size_t{96} << 10 && p.m > 0 &&
         p.n > 0 && p.groups > 0 && (rows ? output_bytes == 2 : output_bytes == 4 && p.accumulate);
}

void GroupedRows(const Queue& queue, const Product& p, const Bf16* a, const Bf16* b, Bf16* c) {
  p.b.row == 1 ? LaunchGrouped<true, true>(queue, p, a, b, c) : LaunchGrouped<true, false>(queue, p, a, b, c);
}

void GroupedSums(const Queue& queue, const Product& p, const Bf16* a, const Bf16* b, float* c) {
  LaunchGrouped<false, false>(queue, p, a, b, c);
}

}  // namespace cohort::runtime::COHORT_CUDA
