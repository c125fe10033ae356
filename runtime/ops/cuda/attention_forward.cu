// Attention on tensor cores (FlashAttention-2: Dao, 2023, algorithm 1): a block takes 128 queries of a head and walks
// over the keys they see, 64 at a time, with a running maximum and sum of each row. Scores live in registers only. For
// sm_80 and later: cp.async into two stages, ldmatrix, mma.sync.
#include "runtime/ops/cuda/attention_tiles.h"

namespace cohort::runtime::COHORT_CUDA {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * kWarp;

// Sizes for heads of kWidth. A warp has kParts times 16 queries, which share what it loads of keys and values.
template <int kWidth>
struct Sizes {
  static constexpr int kParts = kWidth <= 128 ? 2 : 1;
  static constexpr int kQueries = kWarps * 16 * kParts;
  static constexpr int kKeys = kWidth <= 128 ? 64 : 32;
  static constexpr int kQueryBytes = kQueries * kWidth * 2;
  static constexpr int kKeyBytes = kKeys * kWidth * 2;
  static constexpr int kShared = kQueryBytes + 2 * 2 * kKeyBytes;
};

template <int kWidth, bool kPaged>
__global__ void __launch_bounds__(kThreads)
    ForwardKernel(AttentionCall call, const Bf16* q, const Bf16* k, const Bf16* v, void* y, bool y_is_float,
                  float* lse) {
  using S = Sizes<kWidth>;
  constexpr int kParts = S::kParts, kKeys = S::kKeys;
  // The last tiles of a sequence have most to do and go first.
  const GroupTile tile =
      FindGroupTileByWarp(call.q_offsets, call.sequences, gridDim.x - 1 - blockIdx.x, S::kQueries);
  if (tile.group < 0) return;
  const AttentionSequence sequence = SequenceOf(call, tile.group);
  if (kPaged && sequence.queries <= call.decode_queries) return;
  const int64_t head = blockIdx.y, g = head / call.heads_of_group();
  const int64_t rows = Least<int64_t>(S::kQueries, sequence.queries - tile.first);
  const int64_t row_stride = call.heads * call.width, key_stride = call.groups * call.width;
  const int64_t first_row = (sequence.query + tile.first) * row_stride + head * call.width;
  const int64_t first_key_row = sequence.key * key_stride + g * call.width;
  const int32_t key_end = sequence.sight(tile.first + rows - 1), all_see = sequence.sight(tile.first);
  const int64_t steps = CeilDiv(key_end, kKeys);
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;

  char* queries = SharedMemory();
  char* stages = queries + S::kQueryBytes;
  const auto copy_keys = [&](int64_t step) {
    char* stage = stages + step % 2 * 2 * S::kKeyBytes;
    const int64_t first = step * kKeys;
    const auto at = [&](int row) {
      return kPaged ? KeyInPages(call, tile.group, first + row, g)
                    : first_key_row + (first + row) * key_stride;
    };
    CopyKeysAndValues<kWidth, kKeys, kThreads>(k, v, key_end - first, call.width, stage, stage + S::kKeyBytes,
                                               at);
  };
  CopyRows<kWidth, S::kQueries, kThreads>(q, rows, call.width, queries,
                                          [&](int row) { return first_row + row * row_stride; });
  if (steps > 0) copy_keys(0);
  CommitCopies();

  // This lane's rows: part i, half h: warp_row + i 16 + h 8 + lane / 4.
  const int warp_row = warp * 16 * kParts;
  int32_t seen[kParts][2];
  float top[kParts][2], sum[kParts][2];
  float out[kParts][kWidth / 8][4] = {};
#pragma unroll
  for (int i = 0; i < kParts; ++i) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = warp_row + i * 16 + half * 8 + lane / 4;
      seen[i][half] = row < rows ? sequence.sight(tile.first + row) : 0;
      top[i][half] = kNoScore;
      sum[i][half] = 0;
    }
  }
  const float scale2 = call.scale * kLog2E;
  for (int64_t step = 0; step < steps; ++step) {
    if (step + 1 < steps) copy_keys(step + 1);
    CommitCopies();
    WaitCopies<1>();
    __syncthreads();
    const char* keys = stages + step % 2 * 2 * S::kKeyBytes;
    const char* values = keys + S::kKeyBytes;
    const int64_t first_key = step * kKeys;

    float scores[kParts][kKeys / 8][4] = {};
#pragma unroll
    for (int c = 0; c < kWidth; c += 16) {
      uint32_t as[kParts][4];
#pragma unroll
      for (int i = 0; i < kParts; ++i) {
        LoadMatrices(In<kWidth>(queries, PlaceOfA(lane, warp_row + i * 16, c / 8)), as[i]);
      }
#pragma unroll
      for (int j = 0; j < kKeys; j += 16) {
        uint32_t bs[4];
        LoadMatrices(In<kWidth>(keys, PlaceOfB(lane, j, c / 8)), bs);
#pragma unroll
        for (int i = 0; i < kParts; ++i) {
          Multiply16x8x16(scores[i][j / 8], as[i], bs[0], bs[1]);
          Multiply16x8x16(scores[i][j / 8 + 1], as[i], bs[2], bs[3]);
        }
      }
    }
    if (first_key + kKeys > all_see) {  // somebody does not see all of these
#pragma unroll
      for (int i = 0; i < kParts; ++i) {
#pragma unroll
        for (int j = 0; j < kKeys / 8; ++j) {
#pragma unroll
          for (int e = 0; e < 4; ++e) {
            const int64_t key = first_key + j * 8 + lane % 4 * 2 + e % 2;
            if (key >= seen[i][e / 2]) scores[i][j][e] = kNoScore;
          }
        }
      }
    }
#pragma unroll
    for (int i = 0; i < kParts; ++i) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float here = kNoScore;
#pragma unroll
        for (int j = 0; j < kKeys / 8; ++j) {
          here = fmaxf(here, fmaxf(scores[i][j][2 * half], scores[i][j][2 * half + 1]));
        }
        here = fmaxf(top[i][half], QuadMax(here));
        // A row that has seen nothing yet has no maximum to subtract.
        const float base = here == kNoScore ? 0.0f : here * scale2;
        const float shrink = Exp2(top[i][half] * scale2 - base);
        top[i][half] = here;
        float added = 0;
#pragma unroll
        for (int j = 0; j < kKeys / 8; ++j) {
#pragma unroll
          for (int e = 2 * half; e < 2 * half + 2; ++e) {
            scores[i][j][e] = Exp2(__fmaf_rn(scores[i][j][e], scale2, -base));
            added += scores[i][j][e];
          }
        }
        sum[i][half] = __fmaf_rn(sum[i][half], shrink, added);
#pragma unroll
        for (int j = 0; j < kWidth / 8; ++j) {
          out[i][j][2 * half] *= shrink;
          out[i][j][2 * half + 1] *= shrink;
        }
      }
    }
#pragma unroll
    for (int j = 0; j < kKeys; j += 16) {
      uint32_t as[kParts][4];
#pragma unroll
      for (int i = 0; i < kParts; ++i) ToA(scores[i][j / 8], scores[i][j / 8 + 1], as[i]);
#pragma unroll
      for (int c = 0; c < kWidth; c += 16) {
        uint32_t bs[4];
        LoadMatricesTransposed(In<kWidth>(values, PlaceOfTransposedB(lane, j, c / 8)), bs);
#pragma unroll
        for (int i = 0; i < kParts; ++i) {
          Multiply16x8x16(out[i][c / 8], as[i], bs[0], bs[1]);
          Multiply16x8x16(out[i][c / 8 + 1], as[i], bs[2], bs[3]);
        }
      }
    }
    __syncthreads();  // all have read this stage, which is copied into next
  }

#pragma unroll
  for (int i = 0; i < kParts; ++i) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float total = QuadSum(sum[i][half]);
      const int row = warp_row + i * 16 + half * 8 + lane / 4;
      if (row >= rows) continue;
      const float inverse = total > 0 ? 1.0f / total : 0.0f;
      if (lse != nullptr && lane % 4 == 0) {
        lse[head * call.tokens + sequence.query + tile.first + row] =
            total > 0 ? __fmaf_rn(top[i][half], call.scale, logf(total)) : kNoScore;
      }
#pragma unroll
      for (int j = 0; j < kWidth / 8; ++j) {
        if (j * 8 >= call.width) continue;
        StoreTwo(y, first_row + row * row_stride + j * 8 + lane % 4 * 2, y_is_float, false,
                 out[i][j][2 * half] * inverse, out[i][j][2 * half + 1] * inverse);
      }
    }
  }
}

template <int kWidth>
void LaunchForward(const Queue& queue, const AttentionCall& call, const Bf16* q, const Bf16* k, const Bf16* v,
                   void* y, bool y_is_float, float* lse) {
  const dim3 grid(static_cast<unsigned>(MostGroupTiles(call.tokens, call.sequences, Sizes<kWidth>::kQueries)),
                  static_cast<unsigned>(call.heads));
  const auto kernel = call.page_table != nullptr ? ForwardKernel<kWidth, true> : ForwardKernel<kWidth, false>;
  Launch(queue, kernel, grid, kThreads, Sizes<kWidth>::kShared, call, q, k, v, y, y_is_float, lse);
}

template <int kWidth>
constexpr int kSharedOf = Sizes<kWidth>::kShared;

}  // namespace

bool ForwardTakes(const Queue& queue, const AttentionCall& call, const void* q, const void* k, const void* v,
                  const void* y) {
  const int shared[] = {kSharedOf<64>, kSharedOf<128>, kSharedOf<256>};
  return call.width % 8 == 0 && call.width >= 8 && call.width <= kWidestForward && Aligned16(q) &&
         Aligned16(k) && Aligned16(v) && Aligned16(y) &&
         shared[TileWidth(call.width) / 128] <= queue.shared_limit;
}

void AttentionForward(const Queue& queue, const AttentionCall& call, const Bf16* q, const Bf16* k,
                      const Bf16* v, void* y, bool y_is_float, float* lse) {
  switch (TileWidth(call.width)) {
    case 64:
      return LaunchForward<64>(queue, call, q, k, v, y, y_is_float, lse);
    case 128:
      return LaunchForward<128>(queue, call, q, k, v, y, y_is_float, lse);
    default:
      return LaunchForward<256>(queue, call, q, k, v, y, y_is_float, lse);
  }
}

}  // namespace cohort::runtime::COHORT_CUDA
