// Gradients of attention for Hopper (sm_90a): the two kernels of attention_backward.cu with products of warpgroups. Two
// warpgroups take 128 queries, or 128 keys, and walk over 64 of the others at a time, in three stages of copies: one
// that is computed with, one on its way, and one whose last products may still run. Within a turn exponentials run
// beside products, and the last products of dk beside the first ones of the next turn; what a warpgroup waits for, the
// other one fills.
#include "runtime/ops/cuda/warpgroup_tiles.h"

namespace cohort::runtime::COHORT_CUDA {
namespace {

constexpr int kGroups = 2, kThreads = kGroups * kGroupThreads;
constexpr int kStay = kGroupRows * kGroups, kPass = 64, kStages = 3;

template <int kWidth>
constexpr int kStayBytes = kStay* kWidth * 2;
template <int kWidth>
constexpr int kPassBytes = kPass* kWidth * 2;
// Two tiles that stay, stages of two that pass, three numbers of each row that passes; room to begin at 1024.
template <int kWidth>
constexpr int kShared =
    2 * kStayBytes<kWidth> + kStages * 2 * kPassBytes<kWidth> + kStages * 3 * kPass * 4 + kUnitBytes;

template <int kWidth>
__global__ void __launch_bounds__(kThreads, 1)
    DqKernel(AttentionCall call, const Bf16* dy, const Bf16* q, const Bf16* k, const Bf16* v,
             const float* lse, const float* delta, void* dq, bool add) {
#if defined(COHORT_WARPGROUPS)
  constexpr int kBytes = kPassBytes<kWidth>;
  const GroupTile tile =
      FindGroupTileByWarp(call.q_offsets, call.sequences, gridDim.x - 1 - blockIdx.x, kStay);
  if (tile.group < 0) return;
  const AttentionSequence sequence = SequenceOf(call, tile.group);
  const int64_t head = blockIdx.y, g = head / call.heads_of_group();
  const int64_t rows = Least<int64_t>(kStay, sequence.queries - tile.first);
  const int64_t row_stride = call.heads * call.width, key_stride = call.groups * call.width;
  const int64_t first_token = sequence.query + tile.first;
  const int64_t first_row = first_token * row_stride + head * call.width;
  const int64_t first_key_row = sequence.key * key_stride + g * call.width;
  const int32_t key_end = sequence.sight(tile.first + rows - 1);
  const int steps = static_cast<int>(CeilDiv(key_end, kPass));
  const int group_row = threadIdx.x / kGroupThreads * kGroupRows, lane = threadIdx.x % kWarp;
  const int own_row = group_row + threadIdx.x % kGroupThreads / kWarp * 16 + lane / 4;
  const int32_t all_see = sequence.sight(tile.first + Least<int64_t>(group_row, rows - 1));

  const uint32_t begin = FirstUnit();
  char* memory = SharedMemory() + (begin - SharedAddress(SharedMemory()));
  const auto stage_of = [&](int step) { return 2 * kStayBytes<kWidth> + step % kStages * 2 * kBytes; };
  const auto copy_keys = [&](int step) {
    if (step < steps) {
      const int64_t first = static_cast<int64_t>(step) * kPass, from = first_key_row + first * key_stride;
      char* stage = memory + stage_of(step);
      CopyBlocks<kWidth, kPass, kThreads>(k + from, key_stride, key_end - first, call.width, stage);
      CopyBlocks<kWidth, kPass, kThreads>(v + from, key_stride, key_end - first, call.width, stage + kBytes);
    }
    CommitCopies();
  };
  CopyBlocks<kWidth, kStay, kThreads>(q + first_row, row_stride, rows, call.width, memory);
  CopyBlocks<kWidth, kStay, kThreads>(dy + first_row, row_stride, rows, call.width,
                                      memory + kStayBytes<kWidth>);
  copy_keys(0);

  int32_t seen[2];
  float row_lse[2], row_delta[2];  // lse in powers of two
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = own_row + half * 8;
    const int64_t at = head * call.tokens + first_token + row;
    seen[half] = row < rows ? sequence.sight(tile.first + row) : 0;
    row_lse[half] = row < rows ? lse[at] * kLog2E : 0.0f;
    row_delta[half] = row < rows ? delta[at] : 0.0f;
  }
  const float scale2 = call.scale * kLog2E;
  const uint32_t own_queries = begin + group_row * 128, own_grads = own_queries + kStayBytes<kWidth>;
  float out[kWidth / 8][4] = {}, p[kPass / 8][4], ds[kPass / 8][4];
  uint32_t packed[kPass / 16][4];
  for (int step = 0; step < steps; ++step) {
    WaitCopies<0>();
    ShowToProducts();
    __syncthreads();  // this stage is there for all, and all have done with the one before
    const uint32_t keys = begin + stage_of(step);
    BeginProducts();
    IssueRows<kWidth, kStay, kPass>(own_queries, keys, p);
    CommitProducts();
    IssueRows<kWidth, kStay, kPass>(own_grads, keys + kBytes, ds);
    CommitProducts();
    copy_keys(step + 1);  // behind the products, which run meanwhile
    WaitProducts<1>();    // the scores
    Pin(p);
    float probability[kPass / 8][4], grad[kPass / 8][4], sum = 0;
#pragma unroll
    for (int j = 0; j < kPass / 8; ++j) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        probability[j][e] = Exp2(__fmaf_rn(p[j][e], scale2, -row_lse[e / 2]));
        sum += probability[j][e];
      }
    }
    HoldWait(sum, scale2);
    WaitProducts<0>();
    Pin(ds);
    const int first_key = step * kPass;
    if (first_key + kPass > all_see) {
      const int own_key = first_key + lane % 4 * 2, there[2] = {seen[0] - own_key, seen[1] - own_key};
#pragma unroll
      for (int j = 0; j < kPass / 8; ++j) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          if (j * 8 + e % 2 >= there[e / 2]) probability[j][e] = 0;
        }
      }
    }
#pragma unroll
    for (int j = 0; j < kPass / 8; ++j) {
#pragma unroll
      for (int e = 0; e < 4; ++e) grad[j][e] = probability[j][e] * (ds[j][e] - row_delta[e / 2]);
    }
    Pack(grad, packed);
    Pin(packed);
    Pin(out);
    BeginProducts();
    IssueInner<kPass, kPass>(packed, keys, out);
    CommitProducts();
    WaitProducts<0>();
    Pin(out);
  }
  WaitCopies<0>();
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = own_row + half * 8;
    if (row >= rows) continue;
#pragma unroll
    for (int j = 0; j < kWidth / 8; ++j) {
      if (j * 8 >= call.width) continue;
      StoreTwo(dq, first_row + row * row_stride + j * 8 + lane % 4 * 2, add, add,
               out[j][2 * half] * call.scale, out[j][2 * half + 1] * call.scale);
    }
  }
#else
  CheckOnDevice(
      false);  // launched on processors of compute capability 9.0 only, which this is not compiled for
#endif
}

template <int kWidth>
__global__ void __launch_bounds__(kThreads, 1)
    DkvKernel(AttentionCall call, const Bf16* dy, const Bf16* q, const Bf16* k, const Bf16* v,
              const float* lse, const float* delta, void* dk, void* dv, bool add) {
#if defined(COHORT_WARPGROUPS)
  constexpr int kBytes = kPassBytes<kWidth>;
  const GroupTile tile = FindGroupTileByWarp(call.k_offsets, call.sequences, blockIdx.x, kStay);
  if (tile.group < 0) return;
  const AttentionSequence sequence = SequenceOf(call, tile.group);
  const int64_t g = blockIdx.y, heads = call.heads_of_group();
  const int64_t rows = Least<int64_t>(kStay, sequence.keys - tile.first);
  const int64_t key_stride = call.groups * call.width, query_stride = call.heads * call.width;
  const int64_t first_row = (sequence.key + tile.first) * key_stride + g * call.width;
  const int queries = static_cast<int>(sequence.queries),
            first_query = static_cast<int>(FirstThatSees(sequence, tile.first));
  // Turns: the tiles of queries that see any of the keys, head by head.
  const int steps = static_cast<int>(CeilDiv(queries - first_query, kPass) * heads);
  const int group_row = threadIdx.x / kGroupThreads * kGroupRows, lane = threadIdx.x % kWarp;
  const int own_row = group_row + threadIdx.x % kGroupThreads / kWarp * 16 + lane / 4;

  const uint32_t begin = FirstUnit();
  char* memory = SharedMemory() + (begin - SharedAddress(SharedMemory()));
  const auto stage_of = [&](int step) { return 2 * kStayBytes<kWidth> + step % kStages * 2 * kBytes; };
  float* numbers =
      reinterpret_cast<float*>(memory + 2 * kStayBytes<kWidth> + kStages * 2 * kBytes);  // [stage][3][kPass]
  const auto numbers_of = [&](int step) { return numbers + step % kStages * 3 * kPass; };
  // Of the turn that is copied next: the head, and the first query.
  int next_head = static_cast<int>(g * heads), next_query = first_query;
  // lse, delta, seen of this thread's row of that turn: read early, stored late, so that nobody waits for them.
  const int number_row = static_cast<int>(threadIdx.x);
  float row_lse = 0, row_delta = 0;
  int32_t row_seen = 0;
  const auto copy_queries = [&](int step) {
    if (step < steps) {
      const int count = queries - next_query;
      const int64_t token = sequence.query + next_query;
      const int64_t from = token * query_stride + next_head * call.width;
      char* stage = memory + stage_of(step);
      CopyBlocks<kWidth, kPass, kThreads>(q + from, query_stride, count, call.width, stage);
      CopyBlocks<kWidth, kPass, kThreads>(dy + from, query_stride, count, call.width, stage + kBytes);
      if (number_row < kPass) {
        const bool there = number_row < count;
        const int64_t at = next_head * call.tokens + token + number_row;
        row_lse = there ? lse[at] : 0.0f;
        row_delta = there ? delta[at] : 0.0f;
        row_seen = there ? sequence.sight(next_query + number_row) : 0;
      }
      next_query += kPass;
      if (next_query >= queries) next_query = first_query, ++next_head;
    }
    CommitCopies();
  };
  const auto store_numbers = [&](int step) {
    if (step >= steps || number_row >= kPass) return;
    float* of_rows = numbers_of(step);
    of_rows[number_row] = row_lse * kLog2E;
    of_rows[kPass + number_row] = row_delta;
    of_rows[2 * kPass + number_row] = __uint_as_float(row_seen);
  };
  CopyBlocks<kWidth, kStay, kThreads>(k + first_row, key_stride, rows, call.width, memory);
  CopyBlocks<kWidth, kStay, kThreads>(v + first_row, key_stride, rows, call.width,
                                      memory + kStayBytes<kWidth>);
  copy_queries(0);
  store_numbers(0);

  const float scale2 = call.scale * kLog2E;
  const uint32_t own_keys = begin + group_row * 128, own_values = own_keys + kStayBytes<kWidth>;
  float dk_sum[kWidth / 8][4] = {}, dv_sum[kWidth / 8][4] = {};
  float p[kPass / 8][4], ds[kPass / 8][4];  // rows are keys, columns queries
  uint32_t packed[kPass / 16][4], packed_ds[kPass / 16][4];
  const int own_key = static_cast<int>(tile.first) + own_row,
            end_key = static_cast<int>(tile.first) + group_row + kGroupRows;
  int now_query = first_query;
  for (int step = 0; step < steps; ++step) {
    WaitCopies<0>();
    ShowToProducts();
    __syncthreads();
    const uint32_t passing = begin + stage_of(step);
    const float* of_rows = numbers_of(step);
    BeginProducts();
    IssueRows<kWidth, kStay, kPass>(own_keys, passing, p);
    CommitProducts();
    IssueRows<kWidth, kStay, kPass>(own_values, passing + kBytes, ds);
    CommitProducts();
    copy_queries(step + 1);  // behind the products, which run meanwhile
    WaitProducts<1>();       // the scores, and dk and dv of the turn before
    Pin(p);
    float probability[kPass / 8][4], grad[kPass / 8][4];
#pragma unroll
    for (int j = 0; j < kPass / 8; ++j) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        probability[j][e] = Exp2(__fmaf_rn(p[j][e], scale2, -of_rows[j * 8 + lane % 4 * 2 + e % 2]));
      }
    }
    if (sequence.sight(now_query) < end_key) {
#pragma unroll
      for (int j = 0; j < kPass / 8; ++j) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const float seen = of_rows[2 * kPass + j * 8 + lane % 4 * 2 + e % 2];
          if (own_key + e / 2 * 8 >= static_cast<int32_t>(__float_as_uint(seen))) probability[j][e] = 0;
        }
      }
    }
    Pack(probability, packed);
    Pin(packed);
    Pin(dv_sum);
    BeginProducts();
    IssueInner<kPass, kPass>(packed, passing + kBytes, dv_sum);
    CommitProducts();
    WaitProducts<1>();  // dy v, while dv goes on
    Pin(ds);
#pragma unroll
    for (int j = 0; j < kPass / 8; ++j) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        grad[j][e] = probability[j][e] * (ds[j][e] - of_rows[kPass + j * 8 + lane % 4 * 2 + e % 2]);
      }
    }
    Pack(grad, packed_ds);
    Pin(packed_ds);
    Pin(dk_sum);
    BeginProducts();
    IssueInner<kPass, kPass>(packed_ds, passing, dk_sum);
    CommitProducts();
    store_numbers(step + 1);
    now_query = now_query + kPass < queries ? now_query + kPass : first_query;
  }
  WaitProducts<0>();
  Pin(dk_sum);
  Pin(dv_sum);
  WaitCopies<0>();
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = own_row + half * 8;
    if (row >= rows) continue;
#pragma unroll
    for (int j = 0; j < kWidth / 8; ++j) {
      if (j * 8 >= call.width) continue;
      const int64_t at = first_row + row * key_stride + j * 8 + lane % 4 * 2;
      StoreTwo(dk, at, add, add, dk_sum[j][2 * half] * call.scale, dk_sum[j][2 * half + 1] * call.scale);
      StoreTwo(dv, at, add, add, dv_sum[j][2 * half], dv_sum[j][2 * half + 1]);
    }
  }
#else
  CheckOnDevice(false);
#endif
}

template <int kWidth>
void LaunchBackward(const Queue& queue, const AttentionCall& call, const Bf16* dy, const Bf16* q,
                    const Bf16* k, const Bf16* v, const float* lse, const float* delta,
                    const AttentionGrads& grads) {
  const auto grid = [&](int64_t rows, int64_t heads) {
    return dim3(static_cast<unsigned>(MostGroupTiles(rows, call.sequences, kStay)),
                static_cast<unsigned>(heads));
  };
  Launch(queue, DqKernel<kWidth>, grid(call.tokens, call.heads), kThreads, kShared<kWidth>, call, dy, q, k, v,
         lse, delta, grads.dq, grads.add);
  Launch(queue, DkvKernel<kWidth>, grid(call.keys, call.groups), kThreads, kShared<kWidth>, call, dy, q, k, v,
         lse, delta, grads.dk, grads.dv, grads.add);
}

static_assert(kShared<128> <= 227 << 10);

}  // namespace

void AttentionHopperBackward(const Queue& queue, const AttentionCall& call, const Bf16* dy, const Bf16* q,
                             const Bf16* k, const Bf16* v, const float* lse, const float* delta,
                             const AttentionGrads& grads) {
  if (TileWidth(call.width) == 64) {
    LaunchBackward<64>(queue, call, dy, q, k, v, lse, delta, grads);
  } else {
    LaunchBackward<128>(queue, call, dy, q, k, v, lse, delta, grads);
  }
}

}  // namespace cohort::runtime::COHORT_CUDA
