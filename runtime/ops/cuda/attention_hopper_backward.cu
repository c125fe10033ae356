// Gradients of attention for Hopper (sm_90a): the two kernels of attention_backward.cu with products of warpgroups. Two
// warpgroups take 128 queries, or 128 keys, and walk over 64 of the others at a time, in two stages of copies. Within a
// turn exponentials run beside products; what a warpgroup waits for, the other one fills.
#include "runtime/ops/cuda/warpgroup_tiles.h"

namespace cohort::runtime::COHORT_CUDA {
namespace {

constexpr int kGroups = 2, kThreads = kGroups * kGroupThreads;
constexpr int kStay = kGroupRows * kGroups, kPass = 64, kStages = 2;

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
  const int64_t steps = CeilDiv(key_end, kPass);
  const int group_row = threadIdx.x / kGroupThreads * kGroupRows, lane = threadIdx.x % kWarp;
  const int own_row = group_row + threadIdx.x % kGroupThreads / kWarp * 16 + lane / 4;
  const int32_t all_see = sequence.sight(tile.first + Least<int64_t>(group_row, rows - 1));

  const uint32_t begin = FirstUnit();
  char* memory = SharedMemory() + (begin - SharedAddress(SharedMemory()));
  const auto stage_of = [&](int64_t step) {
    return 2 * kStayBytes<kWidth> + static_cast<int>(step % kStages) * 2 * kBytes;
  };
  const auto copy_keys = [&](int64_t step) {
    if (step < steps) {
      const int64_t first = step * kPass;
      const auto at = [&](int row) { return first_key_row + (first + row) * key_stride; };
      CopyBlocks<kWidth, kPass, kThreads>(k, key_end - first, call.width, memory + stage_of(step), at);
      CopyBlocks<kWidth, kPass, kThreads>(v, key_end - first, call.width, memory + stage_of(step) + kBytes,
                                          at);
    }
    CommitCopies();
  };
  const auto row_at = [&](int row) { return first_row + row * row_stride; };
  CopyBlocks<kWidth, kStay, kThreads>(q, rows, call.width, memory, row_at);
  CopyBlocks<kWidth, kStay, kThreads>(dy, rows, call.width, memory + kStayBytes<kWidth>, row_at);
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
  for (int64_t step = 0; step < steps; ++step) {
    WaitCopies<0>();
    ShowToProducts();
    __syncthreads();  // this stage is there for all, and all have done with the other
    copy_keys(step + 1);
    const uint32_t keys = begin + stage_of(step);
    BeginProducts();
    IssueRows<kWidth, kStay, kPass>(own_queries, keys, p);
    CommitProducts();
    IssueRows<kWidth, kStay, kPass>(own_grads, keys + kBytes, ds);
    CommitProducts();
    WaitProducts<1>();
    Pin(p);
    const int64_t first_key = step * kPass;
    const bool some_hidden = first_key + kPass > all_see;
#pragma unroll
    for (int j = 0; j < kPass / 8; ++j) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        p[j][e] = Exp2(__fmaf_rn(p[j][e], scale2, -row_lse[e / 2]));
        if (some_hidden && first_key + j * 8 + lane % 4 * 2 + e % 2 >= seen[e / 2]) p[j][e] = 0;
      }
    }
    WaitProducts<0>();
    Pin(ds);
#pragma unroll
    for (int j = 0; j < kPass / 8; ++j) {
#pragma unroll
      for (int e = 0; e < 4; ++e) ds[j][e] = p[j][e] * (ds[j][e] - row_delta[e / 2]);
    }
    Pack(ds, packed);
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
  const int64_t first_query = FirstThatSees(sequence, tile.first);
  const int64_t query_tiles = CeilDiv(sequence.queries - first_query, kPass), steps = query_tiles * heads;
  const int group_row = threadIdx.x / kGroupThreads * kGroupRows, lane = threadIdx.x % kWarp;
  const int own_row = group_row + threadIdx.x % kGroupThreads / kWarp * 16 + lane / 4;

  const uint32_t begin = FirstUnit();
  char* memory = SharedMemory() + (begin - SharedAddress(SharedMemory()));
  const auto stage_of = [&](int64_t step) {
    return 2 * kStayBytes<kWidth> + static_cast<int>(step % kStages) * 2 * kBytes;
  };
  float* numbers =
      reinterpret_cast<float*>(memory + 2 * kStayBytes<kWidth> + kStages * 2 * kBytes);  // [stage][3][kPass]
  const auto numbers_of = [&](int64_t step) { return numbers + step % kStages * 3 * kPass; };
  const auto copy_queries = [&](int64_t step) {
    if (step < steps) {
      const int64_t head = g * heads + step / query_tiles;
      const int64_t first = first_query + step % query_tiles * kPass, count = sequence.queries - first;
      const auto at = [&](int row) {
        return (sequence.query + first + row) * query_stride + head * call.width;
      };
      CopyBlocks<kWidth, kPass, kThreads>(q, count, call.width, memory + stage_of(step), at);
      CopyBlocks<kWidth, kPass, kThreads>(dy, count, call.width, memory + stage_of(step) + kBytes, at);
      if (threadIdx.x < kPass) {
        const int row = threadIdx.x;
        const bool there = row < count;
        const int64_t from = head * call.tokens + sequence.query + first + row;
        float* of_rows = numbers_of(step);
        of_rows[row] = there ? lse[from] * kLog2E : 0.0f;
        of_rows[kPass + row] = there ? delta[from] : 0.0f;
        of_rows[2 * kPass + row] = __uint_as_float(there ? sequence.sight(first + row) : 0);
      }
    }
    CommitCopies();
  };
  const auto row_at = [&](int row) { return first_row + row * key_stride; };
  CopyBlocks<kWidth, kStay, kThreads>(k, rows, call.width, memory, row_at);
  CopyBlocks<kWidth, kStay, kThreads>(v, rows, call.width, memory + kStayBytes<kWidth>, row_at);
  copy_queries(0);

  const float scale2 = call.scale * kLog2E;
  const uint32_t own_keys = begin + group_row * 128, own_values = own_keys + kStayBytes<kWidth>;
  float dk_sum[kWidth / 8][4] = {}, dv_sum[kWidth / 8][4] = {};
  float p[kPass / 8][4], ds[kPass / 8][4];  // rows are keys, columns queries
  uint32_t packed[kPass / 16][4], packed_ds[kPass / 16][4];
  for (int64_t step = 0; step < steps; ++step) {
    WaitCopies<0>();
    ShowToProducts();
    __syncthreads();
    copy_queries(step + 1);
    const uint32_t queries = begin + stage_of(step);
    const float* of_rows = numbers_of(step);
    BeginProducts();
    IssueRows<kWidth, kStay, kPass>(own_keys, queries, p);
    CommitProducts();
    IssueRows<kWidth, kStay, kPass>(own_values, queries + kBytes, ds);
    CommitProducts();
    WaitProducts<1>();
    Pin(p);
    const bool some_hidden =
        sequence.sight(first_query + step % query_tiles * kPass) < tile.first + group_row + kGroupRows;
    const int64_t key = tile.first + own_row;
#pragma unroll
    for (int j = 0; j < kPass / 8; ++j) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int column = j * 8 + lane % 4 * 2 + e % 2;
        p[j][e] = Exp2(__fmaf_rn(p[j][e], scale2, -of_rows[column]));
        if (some_hidden &&
            key + e / 2 * 8 >= static_cast<int32_t>(__float_as_uint(of_rows[2 * kPass + column]))) {
          p[j][e] = 0;
        }
      }
    }
    Pack(p, packed);
    Pin(dv_sum);
    BeginProducts();
    IssueInner<kPass, kPass>(packed, queries + kBytes, dv_sum);
    CommitProducts();
    WaitProducts<1>();  // dy v, while dv goes on
    Pin(ds);
#pragma unroll
    for (int j = 0; j < kPass / 8; ++j) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        ds[j][e] = p[j][e] * (ds[j][e] - of_rows[kPass + j * 8 + lane % 4 * 2 + e % 2]);
      }
    }
    Pack(ds, packed_ds);
    Pin(dk_sum);
    BeginProducts();
    IssueInner<kPass, kPass>(packed_ds, queries, dk_sum);
    CommitProducts();
    WaitProducts<0>();
    Pin(dk_sum);
    Pin(dv_sum);
  }
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
