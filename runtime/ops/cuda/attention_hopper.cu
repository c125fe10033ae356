// Attention for Hopper (sm_90a): products of warpgroups, which take keys and values from shared memory, and whose
// scores of the next keys run beside the softmax of these (FlashAttention-3: Shah et al., 2024, section 3.2, within a
// warpgroup; between the two warpgroups of a block the hardware finds the overlap). Copies are cp.async, so that packed
// sequences need no tensor maps.
//
// Turn j, of n tiles of 128 keys:   scores of tile j + 1   issued, with
//                                   out += p_j v_j         behind it;
//                                   softmax of tile j + 1  when its scores are there, while the latter runs;
//                                   out rescaled           when that is done.
// Copies in flight meanwhile: keys of tile j + 2, values of tile j + 1.
#include "runtime/ops/cuda/warpgroup_tiles.h"

namespace cohort::runtime::COHORT_CUDA {
namespace {

constexpr int kGroups = 2, kThreads = kGroups * kGroupThreads;
constexpr int kQueries = kGroupRows * kGroups, kKeys = 128;

template <int kWidth>
constexpr int kTileBytes = kKeys* kWidth * 2;  // also of the queries: as many
static_assert(kQueries == kKeys);
// Queries, two stages of keys, two of values; and room to begin at a multiple of 1024.
template <int kWidth>
constexpr int kShared = 5 * kTileBytes<kWidth> + kUnitBytes;

#if defined(COHORT_WARPGROUPS)

// A thread's two rows.
struct Rows {
  int32_t seen[2];
  float top[2], sum[2];
};

// Scores into probabilities, with the running maximum and sum; shrink: what earlier outputs are multiplied by.
__device__ __forceinline__ void Softmax(float (&scores)[kKeys / 8][4], int first_key, bool some_hidden,
                                        float scale2, Rows& rows, float (&shrink)[2]) {
  if (some_hidden) {
    const int own_key = first_key + static_cast<int>(threadIdx.x) % 4 * 2;
    const int seen[2] = {rows.seen[0] - own_key, rows.seen[1] - own_key};
#pragma unroll
    for (int j = 0; j < kKeys / 8; ++j) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        if (j * 8 + e % 2 >= seen[e / 2]) scores[j][e] = kNoScore;
      }
    }
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float here = kNoScore;
#pragma unroll
    for (int j = 0; j < kKeys / 8; ++j)
      here = fmaxf(here, fmaxf(scores[j][2 * half], scores[j][2 * half + 1]));
    here = fmaxf(rows.top[half], QuadMax(here));
    const float base = here == kNoScore ? 0.0f : here * scale2;
    shrink[half] = Exp2(rows.top[half] * scale2 - base);
    rows.top[half] = here;
    float added = 0;
#pragma unroll
    for (int j = 0; j < kKeys / 8; ++j) {
#pragma unroll
      for (int e = 2 * half; e < 2 * half + 2; ++e) {
        scores[j][e] = Exp2(__fmaf_rn(scores[j][e], scale2, -base));
        added += scores[j][e];
      }
    }
    rows.sum[half] = __fmaf_rn(rows.sum[half], shrink[half], added);
  }
}

#endif

template <int kWidth>
__global__ void __launch_bounds__(kThreads, 1)
    HopperKernel(AttentionCall call, const Bf16* q, const Bf16* k, const Bf16* v, void* y, bool y_is_float,
                 float* lse) {
#if defined(COHORT_WARPGROUPS)
  constexpr int kBytes = kTileBytes<kWidth>;
  const GroupTile tile =
      FindGroupTileByWarp(call.q_offsets, call.sequences, gridDim.x - 1 - blockIdx.x, kQueries);
  if (tile.group < 0) return;
  const AttentionSequence sequence = SequenceOf(call, tile.group);
  const int64_t head = blockIdx.y, g = head / call.heads_of_group();
  const int64_t rows = Least<int64_t>(kQueries, sequence.queries - tile.first);
  const int64_t row_stride = call.heads * call.width, key_stride = call.groups * call.width;
  const int64_t first_row = (sequence.query + tile.first) * row_stride + head * call.width;
  const int64_t first_key_row = sequence.key * key_stride + g * call.width;
  const int32_t key_end = sequence.sight(tile.first + rows - 1);
  const int steps = static_cast<int>(CeilDiv(key_end, kKeys));
  const int group = threadIdx.x / kGroupThreads, lane = threadIdx.x % kWarp;
  const int group_row = group * kGroupRows,
            own_row = group_row + threadIdx.x % kGroupThreads / kWarp * 16 + lane / 4;
  // What the first row of this warpgroup sees; where it has no rows nothing is written, whatever is seen.
  const int32_t all_see = sequence.sight(tile.first + Least<int64_t>(group_row, rows - 1));

  const uint32_t begin = FirstUnit();
  char* queries = SharedMemory() + (begin - SharedAddress(SharedMemory()));
  const auto keys_of = [&](int step) { return (1 + step % 2) * kBytes; };  // from `begin`
  const auto values_of = [&](int step) { return (3 + step % 2) * kBytes; };
  const auto copy = [&](const Bf16* x, int step, int to) {
    if (step >= steps) return;
    const int64_t first = static_cast<int64_t>(step) * kKeys;
    CopyBlocks<kWidth, kKeys, kThreads>(x + first_key_row + first * key_stride, key_stride, key_end - first,
                                        call.width, queries + to);
  };
  CopyBlocks<kWidth, kQueries, kThreads>(q + first_row, row_stride, rows, call.width, queries);
  copy(k, 0, keys_of(0));
  CommitCopies();
  copy(k, 1, keys_of(1));
  copy(v, 0, values_of(0));
  CommitCopies();

  Rows own;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = own_row + half * 8;
    own.seen[half] = row < rows ? sequence.sight(tile.first + row) : 0;
    own.top[half] = kNoScore;
    own.sum[half] = 0;
  }
  const float scale2 = call.scale * kLog2E;
  const uint32_t own_queries = begin + group_row * 128;
  float out[kWidth / 8][4] = {};
  float scores[kKeys / 8][4];
  uint32_t p[kKeys / 16][4];
  float shrink[2];
  if (steps > 0) {
    WaitCopies<1>();
    ShowToProducts();
    __syncthreads();
    BeginProducts();
    IssueRows<kWidth, kQueries, kKeys>(own_queries, begin + keys_of(0), scores);
    CommitProducts();
    WaitProducts<0>();
    Pin(scores);
    Softmax(scores, 0, kKeys > all_see, scale2, own, shrink);
    Pack(scores, p);
  }
  for (int step = 0; step + 1 < steps; ++step) {
    WaitCopies<0>();
    ShowToProducts();
    __syncthreads();  // keys of step + 1 and values of `step` are there; those of the turn before are done with
    Pin(out);
    Pin(p);
    BeginProducts();
    IssueRows<kWidth, kQueries, kKeys>(own_queries, begin + keys_of(step + 1), scores);
    CommitProducts();
    IssueInner<kKeys, kKeys>(p, begin + values_of(step), out);
    CommitProducts();
    // Behind the products, which run meanwhile.
    copy(k, step + 2, keys_of(step));
    copy(v, step + 1, values_of(step + 1));
    CommitCopies();
    WaitProducts<1>();
    Pin(scores);
    const int first_key = (step + 1) * kKeys;
    Softmax(scores, first_key, first_key + kKeys > all_see, scale2, own, shrink);
    HoldWait(own.sum[0] + own.sum[1], scale2);
    WaitProducts<0>();
    Pin(out);
    // No maximum of the warp's rows has grown in most turns.
    if (__any_sync(kAllLanes, shrink[0] != 1.0f || shrink[1] != 1.0f)) {
#pragma unroll
      for (int j = 0; j < kWidth / 8; ++j) {
#pragma unroll
        for (int e = 0; e < 4; ++e) out[j][e] *= shrink[e / 2];
      }
    }
    Pack(scores, p);
  }
  if (steps > 0) {  // the last tile's outputs
    WaitCopies<0>();
    ShowToProducts();
    __syncthreads();
    Pin(out);
    Pin(p);
    BeginProducts();
    IssueInner<kKeys, kKeys>(p, begin + values_of(steps - 1), out);
    CommitProducts();
    WaitProducts<0>();
    Pin(out);
  }

#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const float total = QuadSum(own.sum[half]);
    const int row = own_row + half * 8;
    if (row >= rows) continue;
    const float inverse = total > 0 ? 1.0f / total : 0.0f;
    if (lse != nullptr && lane % 4 == 0) {
      lse[head * call.tokens + sequence.query + tile.first + row] =
          total > 0 ? __fmaf_rn(own.top[half], call.scale, logf(total)) : kNoScore;
    }
#pragma unroll
    for (int j = 0; j < kWidth / 8; ++j) {
      if (j * 8 >= call.width) continue;
      StoreTwo(y, first_row + row * row_stride + j * 8 + lane % 4 * 2, y_is_float, false,
               out[j][2 * half] * inverse, out[j][2 * half + 1] * inverse);
    }
  }
#else
  CheckOnDevice(
      false);  // launched on processors of compute capability 9.0 only, which this is not compiled for
#endif
}

template <int kWidth>
void LaunchHopper(const Queue& queue, const AttentionCall& call, const Bf16* q, const Bf16* k, const Bf16* v,
                  void* y, bool y_is_float, float* lse) {
  const dim3 grid(static_cast<unsigned>(MostGroupTiles(call.tokens, call.sequences, kQueries)),
                  static_cast<unsigned>(call.heads));
  Launch(queue, HopperKernel<kWidth>, grid, kThreads, kShared<kWidth>, call, q, k, v, y, y_is_float, lse);
}

}  // namespace

// A build for other processors (COHORT_CUDA_ARCHITECTURES without 90a) runs on a Hopper too, without these kernels.
#if defined(COHORT_CUDA_HOPPER) || defined(COHORT_CUDA_EMULATED)
constexpr bool kCompiled = true;
#else
constexpr bool kCompiled = false;
#endif

bool HopperTakes(const Queue& queue, const AttentionCall& call) {
  return kCompiled && queue.compute_capability == 90 && call.page_table == nullptr && call.width <= 128 &&
         kShared<128> <= queue.shared_limit;
}

void AttentionHopper(const Queue& queue, const AttentionCall& call, const Bf16* q, const Bf16* k,
                     const Bf16* v, void* y, bool y_is_float, float* lse) {
  if (TileWidth(call.width) == 64) {
    LaunchHopper<64>(queue, call, q, k, v, y, y_is_float, lse);
  } else {
    LaunchHopper<128>(queue, call, q, k, v, y, y_is_float, lse);
  }
}

}  // namespace cohort::runtime::COHORT_CUDA
