// Attention of few queries a sequence to keys in pages: decoding, bound by the bytes of the pages. All heads of a group
// share what is read of its keys: they, and what queries there are, are the 16 rows of a tile. The keys of a sequence
// are split over blocks, whose results a second kernel merges (Flash-Decoding: Dao et al., 2023); within a block, each
// of four warps has its own 16 of every 64 keys, with a maximum and a sum of its own, merged at the end.
#include "runtime/ops/cuda/attention_tiles.h"
#include "runtime/ops/cuda/reduce.h"

namespace cohort::runtime::COHORT_CUDA {
namespace {

constexpr int kWarps = 4, kThreads = kWarps * kWarp;
constexpr int kRows = 16, kKeys = 16 * kWarps;
constexpr int64_t kLeastKeys = 256;  // that are worth a block of their own

// How the rows of a tile are queries and heads of a group.
struct RowMap {
  int heads;  // of a group
  __host__ __device__ explicit RowMap(const AttentionCall& call)
      : heads(static_cast<int>(call.heads_of_group())) {}
  __host__ __device__ int queries_of_tile() const { return heads >= kRows ? 1 : kRows / heads; }
  __host__ __device__ int head_tiles() const { return (heads + kRows - 1) / kRows; }
  // Row r of head tile `part`: (query of the tile, head of the group); a head of `heads` or more does not exist.
  __host__ __device__ int query(int r) const { return heads >= kRows ? 0 : r / heads; }
  __host__ __device__ int head(int r, int part) const {
    return heads >= kRows ? part * kRows + r : r % heads;
  }
};

template <int kWidth>
constexpr int kTileBytes = kKeys* kWidth * 2;
template <int kWidth>
constexpr int kShared = kRows* kWidth * 2 + 4 * kTileBytes<kWidth>;  // queries, two stages of keys and values

template <int kWidth>
__global__ void __launch_bounds__(kThreads)
    DecodeKernel(AttentionCall call, const Bf16* q, const Bf16* k, const Bf16* v, Bf16* y, float* part_y,
                 float* part_lse) {
  __shared__ float tops[kWarps][kRows], sums[kWarps][kRows];
  const RowMap map(call);
  const int part = static_cast<int>(blockIdx.y) % map.head_tiles();
  const int64_t g = static_cast<int>(blockIdx.y) / map.head_tiles();
  const GroupTile tile =
      FindGroupTileByWarp(call.q_offsets, call.sequences, blockIdx.x, map.queries_of_tile());
  if (tile.group < 0) return;
  const AttentionSequence sequence = SequenceOf(call, tile.group);
  if (sequence.queries > call.decode_queries) return;
  const auto there = [&](int row) {
    return tile.first + map.query(row) < sequence.queries && map.query(row) < map.queries_of_tile() &&
           map.head(row, part) < map.heads;
  };
  // Of row r in q and y: its token and head.
  const auto token_of = [&](int row) { return sequence.query + tile.first + map.query(row); };
  const auto head_of = [&](int row) { return g * map.heads + map.head(row, part); };
  const int64_t last = Least<int64_t>(tile.first + map.queries_of_tile(), sequence.queries) - 1;
  const int32_t key_end = sequence.sight(last);
  // In whole tiles: only the last part ends within one, where nobody sees the rest.
  const Range range = PartOf(key_end, gridDim.z, blockIdx.z, kKeys);
  const int64_t steps = CeilDiv(range.end - range.begin, kKeys);
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;

  char* queries = SharedMemory();
  char* stages = queries + kRows * kWidth * 2;
  const auto copy_keys = [&](int64_t step) {
    char* stage = stages + step % 2 * 2 * kTileBytes<kWidth>;
    const int64_t first = range.begin + step * kKeys;
    const auto at = [&](int row) { return KeyInPages(call, tile.group, first + row, g); };
    CopyKeysAndValues<kWidth, kKeys, kThreads>(k, v, range.end - first, call.width, stage,
                                               stage + kTileBytes<kWidth>, at);
  };
  constexpr int kChunks = kWidth / 8;
  for (int i = threadIdx.x; i < kRows * kChunks; i += kThreads) {
    const int row = i / kChunks, chunk = i % kChunks;
    const bool real = there(row) && chunk * 8 < call.width;
    const Bf16* from = real ? q + (token_of(row) * call.heads + head_of(row)) * call.width + chunk * 8 : q;
    CopyAsync16(queries + Swizzled<kChunks>(row, chunk) * 16, from, real ? 16 : 0);
  }
  if (steps > 0) copy_keys(0);
  CommitCopies();

  int32_t seen[2];
  float top[2] = {kNoScore, kNoScore}, sum[2] = {};
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = half * 8 + lane / 4;
    seen[half] = there(row) ? sequence.sight(tile.first + map.query(row)) : 0;
  }
  const float scale2 = call.scale * kLog2E;
  float out[kWidth / 8][4] = {};
  for (int64_t step = 0; step < steps; ++step) {
    if (step + 1 < steps) copy_keys(step + 1);
    CommitCopies();
    WaitCopies<1>();
    __syncthreads();
    const char* keys = stages + step % 2 * 2 * kTileBytes<kWidth>;
    const int64_t first_key = range.begin + step * kKeys + warp * 16;
    float scores[2][4] = {};
    MultiplyRows<kWidth, 16>(queries, 0, keys, warp * 16, lane, scores);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float here = kNoScore;
#pragma unroll
      for (int j = 0; j < 2; ++j) {
#pragma unroll
        for (int e = 2 * half; e < 2 * half + 2; ++e) {
          const int64_t key = first_key + j * 8 + lane % 4 * 2 + e % 2;
          if (key >= seen[half]) scores[j][e] = kNoScore;
          here = fmaxf(here, scores[j][e]);
        }
      }
      here = fmaxf(top[half], QuadMax(here));
      const float base = here == kNoScore ? 0.0f : here * scale2;
      const float shrink = Exp2(top[half] * scale2 - base);
      top[half] = here;
      float added = 0;
#pragma unroll
      for (int j = 0; j < 2; ++j) {
#pragma unroll
        for (int e = 2 * half; e < 2 * half + 2; ++e) {
          scores[j][e] = Exp2(__fmaf_rn(scores[j][e], scale2, -base));
          added += scores[j][e];
        }
      }
      sum[half] = __fmaf_rn(sum[half], shrink, added);
#pragma unroll
      for (int j = 0; j < kWidth / 8; ++j) {
        out[j][2 * half] *= shrink;
        out[j][2 * half + 1] *= shrink;
      }
    }
    MultiplyInner<kWidth, 16>(scores, keys + kTileBytes<kWidth>, warp * 16, lane, out);
    __syncthreads();
  }

  // The four warps' parts of each row, over the stages, which nobody needs any more: [warp][row][kWidth].
  float* parts = reinterpret_cast<float*>(stages);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const float total = QuadSum(sum[half]);
    const int row = half * 8 + lane / 4;
    if (lane % 4 == 0) {
      tops[warp][row] = top[half] * scale2;
      sums[warp][row] = total;
    }
#pragma unroll
    for (int j = 0; j < kWidth / 8; ++j) {
      float* to = parts + (warp * kRows + row) * kWidth + j * 8 + lane % 4 * 2;
      to[0] = out[j][2 * half];
      to[1] = out[j][2 * half + 1];
    }
  }
  __syncthreads();
  for (int row = warp; row < kRows; row += kWarps) {
    if (!there(row)) continue;
    float best = kNoScore, total = 0, weights[kWarps];
    for (int w = 0; w < kWarps; ++w) best = fmaxf(best, tops[w][row]);
    for (int w = 0; w < kWarps; ++w) {
      weights[w] = best == kNoScore ? 0.0f : Exp2(tops[w][row] - best);
      total = __fmaf_rn(weights[w], sums[w][row], total);
    }
    const float inverse = total > 0 ? 1.0f / total : 0.0f;
    const int64_t at = token_of(row) * call.heads + head_of(row);  // of [tokens, heads]
    const int64_t in_part = blockIdx.z * call.tokens * call.heads + at;
    for (int c = lane; c < call.width; c += kWarp) {
      float value = 0;
      for (int w = 0; w < kWarps; ++w)
        value = __fmaf_rn(weights[w], parts[(w * kRows + row) * kWidth + c], value);
      value *= inverse;
      if (part_y == nullptr) {
        y[at * call.width + c] = FromFloat<Bf16>(value);
      } else {
        part_y[in_part * call.width + c] = value;
      }
    }
    if (part_lse != nullptr && lane == 0) part_lse[in_part] = total > 0 ? best + log2f(total) : kNoScore;
  }
}

// y[t, h] of the splits' parts, in their order; a warp a (token, head). lse here is in powers of two.
__global__ void __launch_bounds__(kThreads)
    MergeSplits(AttentionCall call, int64_t splits, const float* part_y, const float* part_lse, Bf16* y) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarp;
  const int lane = threadIdx.x % kWarp;
  const int64_t rows = call.tokens * call.heads, token = row / call.heads;
  if (row >= rows) return;
  int64_t low = 0, high = call.sequences;  // the token's sequence: the first that ends beyond it
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (call.q_offsets[middle + 1] > token) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  if (low == call.sequences || call.q_offsets[low + 1] - call.q_offsets[low] > call.decode_queries) return;
  float best = kNoScore, total = 0;
  for (int64_t p = 0; p < splits; ++p) best = fmaxf(best, part_lse[p * rows + row]);
  if (best == kNoScore) best = 0;
  for (int64_t p = 0; p < splits; ++p) total += Exp2(part_lse[p * rows + row] - best);
  const float inverse = total > 0 ? 1.0f / total : 0.0f;
  for (int64_t c = lane; c < call.width; c += kWarp) {
    float value = 0;
    for (int64_t p = 0; p < splits; ++p) {
      value =
          __fmaf_rn(Exp2(part_lse[p * rows + row] - best), part_y[(p * rows + row) * call.width + c], value);
    }
    y[row * call.width + c] = FromFloat<Bf16>(value * inverse);
  }
}

dim3 GridOf(const AttentionCall& call, int64_t splits) {
  const RowMap map(call);
  return dim3(static_cast<unsigned>(MostGroupTiles(call.tokens, call.sequences, map.queries_of_tile())),
              static_cast<unsigned>(call.groups * map.head_tiles()), static_cast<unsigned>(splits));
}

int SharedOf(int64_t width) {
  const int shared[] = {kShared<64>, kShared<128>, kShared<256>};
  return shared[TileWidth(width) / 128];
}

template <int kWidth>
void LaunchDecode(const Queue& queue, const AttentionCall& call, int64_t splits, const Bf16* q,
                  const Bf16* keys, const Bf16* values, Bf16* y, float* part_y, float* part_lse) {
  Launch(queue, DecodeKernel<kWidth>, GridOf(call, splits), kThreads, kShared<kWidth>, call, q, keys, values,
         y, part_y, part_lse);
}

}  // namespace

bool DecodeTakes(const Queue& queue, const AttentionCall& call, const void* q, const void* keys,
                 const void* values, const void* y) {
  return call.width % 8 == 0 && call.width >= 8 && call.width <= kWidestForward && Aligned16(q) &&
         Aligned16(keys) && Aligned16(values) && Aligned16(y) && SharedOf(call.width) <= queue.shared_limit;
}

// Enough blocks for three on each multiprocessor, as far as the longest sequence that the table has room for gives each
// something to do. Lengths are on the device: a block whose part lies past the end leaves at once.
int64_t DecodeSplits(const Queue& queue, const AttentionCall& call) {
  const dim3 grid = GridOf(call, 1);
  const int64_t blocks = Most<int64_t>(1, static_cast<int64_t>(call.tokens) * grid.y);
  const int64_t wanted = CeilDiv(3 * queue.multiprocessors, blocks);
  const int64_t most = CeilDiv(call.table_width * call.page_size, kLeastKeys);
  return Most<int64_t>(1, Least<int64_t>(Least(wanted, most), 128));
}

void PagedDecode(const Queue& queue, const AttentionCall& call, int64_t splits, const Bf16* q,
                 const Bf16* keys, const Bf16* values, Bf16* y, float* part_y, float* part_lse) {
  switch (TileWidth(call.width)) {
    case 64:
      LaunchDecode<64>(queue, call, splits, q, keys, values, y, part_y, part_lse);
      break;
    case 128:
      LaunchDecode<128>(queue, call, splits, q, keys, values, y, part_y, part_lse);
      break;
    default:
      LaunchDecode<256>(queue, call, splits, q, keys, values, y, part_y, part_lse);
  }
  if (part_y == nullptr) return;
  Launch(queue, MergeSplits, static_cast<unsigned>(CeilDiv(call.tokens * call.heads, kWarps)), kThreads, 0,
         call, splits, part_y, part_lse, y);
}

}  // namespace cohort::runtime::COHORT_CUDA
