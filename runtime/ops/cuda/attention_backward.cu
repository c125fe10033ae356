// Gradients of attention on tensor cores, in two kernels that write each output once, so that sums have an order
// (FlashAttention-2: Dao, 2023, algorithm 2, without its atomic additions to dq). Both compute the scores anew.
//   DqKernel   64 queries of a head walk over the keys they see:       dq  = sum_j ds_j k_j
//   DkvKernel  64 keys of a group walk over the queries that see them,
//              of all heads of the group, with scores transposed:      dv += p^T dy, dk += ds^T q
// with p = exp(scale q k - lse), ds = scale p (dy v - delta).
#include "runtime/ops/cuda/attention_tiles.h"

namespace cohort::runtime::COHORT_CUDA {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * kWarp;
constexpr int kRows = 64;  // of every tile: 16 a warp of those that stay

template <int kWidth>
constexpr int kTileBytes = kRows* kWidth * 2;
// Two tiles that stay, two stages of two that pass, and three numbers of each row that passes.
template <int kWidth>
constexpr int kShared = 6 * kTileBytes<kWidth> + 2 * 3 * kRows * 4;

template <int kWidth>
__global__ void __launch_bounds__(kThreads)
    DqKernel(AttentionCall call, const Bf16* dy, const Bf16* q, const Bf16* k, const Bf16* v,
             const float* lse, const float* delta, void* dq, bool add) {
  constexpr int kBytes = kTileBytes<kWidth>;
  const GroupTile tile =
      FindGroupTileByWarp(call.q_offsets, call.sequences, gridDim.x - 1 - blockIdx.x, kRows);
  if (tile.group < 0) return;
  const AttentionSequence sequence = SequenceOf(call, tile.group);
  const int64_t head = blockIdx.y, g = head / call.heads_of_group();
  const int64_t rows = Least<int64_t>(kRows, sequence.queries - tile.first);
  const int64_t row_stride = call.heads * call.width, key_stride = call.groups * call.width;
  const int64_t first_key_row = sequence.key * key_stride + g * call.width;
  const int64_t first_token = sequence.query + tile.first;
  const int64_t first_row = first_token * row_stride + head * call.width;
  const int32_t key_end = sequence.sight(tile.first + rows - 1), all_see = sequence.sight(tile.first);
  const int64_t steps = CeilDiv(key_end, kRows);
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;

  char* queries = SharedMemory();
  char* grads = queries + kBytes;
  char* stages = grads + kBytes;
  const auto copy_keys = [&](int64_t step) {
    char* stage = stages + step % 2 * 2 * kBytes;
    const int64_t first = step * kRows;
    const auto at = [&](int row) { return first_key_row + (first + row) * key_stride; };
    CopyRows<kWidth, kRows, kThreads>(k, key_end - first, call.width, stage, at);
    CopyRows<kWidth, kRows, kThreads>(v, key_end - first, call.width, stage + kBytes, at);
  };
  const auto row_at = [&](int row) { return first_row + row * row_stride; };
  CopyRows<kWidth, kRows, kThreads>(q, rows, call.width, queries, row_at);
  CopyRows<kWidth, kRows, kThreads>(dy, rows, call.width, grads, row_at);
  if (steps > 0) copy_keys(0);
  CommitCopies();

  int32_t seen[2];
  float row_lse[2], row_delta[2];  // lse in powers of two
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = warp * 16 + half * 8 + lane / 4;
    const int64_t at = head * call.tokens + first_token + row;
    seen[half] = row < rows ? sequence.sight(tile.first + row) : 0;
    row_lse[half] = row < rows ? lse[at] * kLog2E : 0.0f;
    row_delta[half] = row < rows ? delta[at] : 0.0f;
  }
  const float scale2 = call.scale * kLog2E;
  float out[kWidth / 8][4] = {};
  for (int64_t step = 0; step < steps; ++step) {
    if (step + 1 < steps) copy_keys(step + 1);
    CommitCopies();
    WaitCopies<1>();
    __syncthreads();
    const char* keys = stages + step % 2 * 2 * kBytes;
    const int64_t first_key = step * kRows;
    float p[kRows / 8][4] = {}, ds[kRows / 8][4] = {};
    MultiplyRows<kWidth, kRows>(queries, warp * 16, keys, 0, lane, p);
    MultiplyRows<kWidth, kRows>(grads, warp * 16, keys + kBytes, 0, lane, ds);
    const bool some_hidden = first_key + kRows > all_see;
#pragma unroll
    for (int j = 0; j < kRows / 8; ++j) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int half = e / 2;
        float probability = Exp2(__fmaf_rn(p[j][e], scale2, -row_lse[half]));
        if (some_hidden && first_key + j * 8 + lane % 4 * 2 + e % 2 >= seen[half]) probability = 0;
        ds[j][e] = probability * (ds[j][e] - row_delta[half]);
      }
    }
    MultiplyInner<kWidth, kRows>(ds, keys, 0, lane, out);
    __syncthreads();
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = warp * 16 + half * 8 + lane / 4;
    if (row >= rows) continue;
#pragma unroll
    for (int j = 0; j < kWidth / 8; ++j) {
      if (j * 8 >= call.width) continue;
      StoreTwo(dq, first_row + row * row_stride + j * 8 + lane % 4 * 2, add, add,
               out[j][2 * half] * call.scale, out[j][2 * half + 1] * call.scale);
    }
  }
}

template <int kWidth>
__global__ void __launch_bounds__(kThreads)
    DkvKernel(AttentionCall call, const Bf16* dy, const Bf16* q, const Bf16* k, const Bf16* v,
              const float* lse, const float* delta, void* dk, void* dv, bool add) {
  constexpr int kBytes = kTileBytes<kWidth>;
  // The first keys of a sequence are seen by most queries; they come first as they are.
  const GroupTile tile = FindGroupTileByWarp(call.k_offsets, call.sequences, blockIdx.x, kRows);
  if (tile.group < 0) return;
  const AttentionSequence sequence = SequenceOf(call, tile.group);
  const int64_t g = blockIdx.y, heads = call.heads_of_group();
  const int64_t rows = Least<int64_t>(kRows, sequence.keys - tile.first);
  const int64_t key_stride = call.groups * call.width, query_stride = call.heads * call.width;
  const int64_t first_row = (sequence.key + tile.first) * key_stride + g * call.width;
  const int64_t first_query = FirstThatSees(sequence, tile.first);
  const int64_t query_tiles = CeilDiv(sequence.queries - first_query, kRows), steps = query_tiles * heads;
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;

  char* keys = SharedMemory();
  char* values = keys + kBytes;
  char* stages = values + kBytes;
  float* numbers = reinterpret_cast<float*>(stages + 4 * kBytes);  // [2][3][kRows]: lse, delta, seen
  const auto copy_queries = [&](int64_t step) {
    const int64_t head = g * heads + step / query_tiles;
    const int64_t first = first_query + step % query_tiles * kRows, count = sequence.queries - first;
    char* stage = stages + step % 2 * 2 * kBytes;
    const auto at = [&](int row) {
      return (sequence.query + first + row) * query_stride + head * call.width;
    };
    CopyRows<kWidth, kRows, kThreads>(q, count, call.width, stage, at);
    CopyRows<kWidth, kRows, kThreads>(dy, count, call.width, stage + kBytes, at);
    float* of_rows = numbers + step % 2 * 3 * kRows;
    if (threadIdx.x < kRows) {
      const int row = threadIdx.x;
      const bool there = row < count;
      const int64_t from = head * call.tokens + sequence.query + first + row;
      of_rows[row] = there ? lse[from] * kLog2E : 0.0f;
      of_rows[kRows + row] = there ? delta[from] : 0.0f;
      of_rows[2 * kRows + row] = __uint_as_float(there ? sequence.sight(first + row) : 0);
    }
  };
  const auto row_at = [&](int row) { return first_row + row * key_stride; };
  CopyRows<kWidth, kRows, kThreads>(k, rows, call.width, keys, row_at);
  CopyRows<kWidth, kRows, kThreads>(v, rows, call.width, values, row_at);
  if (steps > 0) copy_queries(0);
  CommitCopies();

  const float scale2 = call.scale * kLog2E;
  float dk_sum[kWidth / 8][4] = {}, dv_sum[kWidth / 8][4] = {};
  for (int64_t step = 0; step < steps; ++step) {
    if (step + 1 < steps) copy_queries(step + 1);
    CommitCopies();
    WaitCopies<1>();
    __syncthreads();
    const char* queries = stages + step % 2 * 2 * kBytes;
    const float* of_rows = numbers + step % 2 * 3 * kRows;
    const int64_t first = first_query + step % query_tiles * kRows;
    const bool some_hidden = sequence.sight(first) < tile.first + kRows;
    // Rows are keys, columns queries.
    float p[kRows / 8][4] = {}, ds[kRows / 8][4] = {};
    MultiplyRows<kWidth, kRows>(keys, warp * 16, queries, 0, lane, p);
    MultiplyRows<kWidth, kRows>(values, warp * 16, queries + kBytes, 0, lane, ds);
#pragma unroll
    for (int j = 0; j < kRows / 8; ++j) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int column = j * 8 + lane % 4 * 2 + e % 2;
        float probability = Exp2(__fmaf_rn(p[j][e], scale2, -of_rows[column]));
        if (some_hidden) {
          const int64_t key = tile.first + warp * 16 + e / 2 * 8 + lane / 4;
          if (key >= static_cast<int32_t>(__float_as_uint(of_rows[2 * kRows + column]))) probability = 0;
        }
        p[j][e] = probability;
        ds[j][e] = probability * (ds[j][e] - of_rows[kRows + column]);
      }
    }
    MultiplyInner<kWidth, kRows>(p, queries + kBytes, 0, lane, dv_sum);
    MultiplyInner<kWidth, kRows>(ds, queries, 0, lane, dk_sum);
    __syncthreads();
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = warp * 16 + half * 8 + lane / 4;
    if (row >= rows) continue;
#pragma unroll
    for (int j = 0; j < kWidth / 8; ++j) {
      if (j * 8 >= call.width) continue;
      const int64_t at = first_row + row * key_stride + j * 8 + lane % 4 * 2;
      StoreTwo(dk, at, add, add, dk_sum[j][2 * half] * call.scale, dk_sum[j][2 * half + 1] * call.scale);
      StoreTwo(dv, at, add, add, dv_sum[j][2 * half], dv_sum[j][2 * half + 1]);
    }
  }
}

template <int kWidth>
void LaunchBackward(const Queue& queue, const AttentionCall& call, const Bf16* dy, const Bf16* q,
                    const Bf16* k, const Bf16* v, const float* lse, const float* delta,
                    const AttentionGrads& grads) {
  const auto grid = [&](int64_t rows, int64_t heads) {
    return dim3(static_cast<unsigned>(MostGroupTiles(rows, call.sequences, kRows)),
                static_cast<unsigned>(heads));
  };
  Launch(queue, DqKernel<kWidth>, grid(call.tokens, call.heads), kThreads, kShared<kWidth>, call, dy, q, k, v,
         lse, delta, grads.dq, grads.add);
  Launch(queue, DkvKernel<kWidth>, grid(call.keys, call.groups), kThreads, kShared<kWidth>, call, dy, q, k, v,
         lse, delta, grads.dk, grads.dv, grads.add);
}

}  // namespace

bool BackwardTakes(const Queue& queue, const AttentionCall& call, const void* dy, const void* q,
                   const void* k, const void* v, const AttentionGrads& grads) {
  const int shared = call.width <= 64 ? kShared<64> : kShared<128>;
  return call.width % 8 == 0 && call.width >= 8 && call.width <= kWidestBackward && Aligned16(dy) &&
         Aligned16(q) && Aligned16(k) && Aligned16(v) && Aligned16(grads.dq) && Aligned16(grads.dk) &&
         Aligned16(grads.dv) && shared <= queue.shared_limit;
}

void AttentionBackward(const Queue& queue, const AttentionCall& call, const Bf16* dy, const Bf16* q,
                       const Bf16* k, const Bf16* v, const float* lse, const float* delta,
                       const AttentionGrads& grads) {
  if (TileWidth(call.width) == 64) {
    LaunchBackward<64>(queue, call, dy, q, k, v, lse, delta, grads);
  } else {
    LaunchBackward<128>(queue, call, dy, q, k, v, lse, delta, grads);
  }
}

}  // namespace cohort::runtime::COHORT_CUDA
