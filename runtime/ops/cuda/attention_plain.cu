// Attention in f32 multiply-adds, of any width whose tiles fit into shared memory: f32 tensors, and bf16 ones that the
// tensor-core kernels do not take. The same order of work as those: tiles of 16 queries by 32 keys; a warp has 4 of the
// queries, a lane a key, and for outputs every 32nd column. Sums of outputs are kept in shared memory.
#include "runtime/ops/cuda/attention_tiles.h"
#include "runtime/ops/cuda/reduce.h"

namespace cohort::runtime::COHORT_CUDA {
namespace {

constexpr int kWarps = 4, kThreads = kWarps * kWarp;
constexpr int kQueries = 16, kKeys = kWarp, kOfWarp = kQueries / kWarps;

// tile[row * pitch + c] = x[at(row) + c], zeros for rows from `rows` on.
template <typename T, typename At>
__device__ __forceinline__ void LoadRows(const T* x, int tile_rows, int64_t rows, int width, int pitch,
                                         float* tile, const At& at) {
  for (int row = threadIdx.x / kWarp; row < tile_rows; row += kWarps) {
    const T* from = row < rows ? x + at(row) : nullptr;
    for (int c = threadIdx.x % kWarp; c < width; c += kWarp)
      tile[row * pitch + c] = from != nullptr ? ToFloat(from[c]) : 0.0f;
  }
}

__device__ __forceinline__ void Clear(float* x, int n) {
  for (int i = threadIdx.x; i < n; i += kThreads) x[i] = 0;
}

// dots[i] = row (4 warp + i) of a . row `lane` of b, whose rows have an odd pitch so that lanes meet different banks.
__device__ __forceinline__ void Dots(const float* a, const float* b, int width, int pitch,
                                     float (&dots)[kOfWarp]) {
  const float* rows = a + threadIdx.x / kWarp * kOfWarp * width;
  const float* key = b + threadIdx.x % kWarp * pitch;
  for (int i = 0; i < kOfWarp; ++i) dots[i] = 0;
  for (int c = 0; c < width; ++c) {
    const float value = key[c];
#pragma unroll
    for (int i = 0; i < kOfWarp; ++i) dots[i] = __fmaf_rn(rows[i * width + c], value, dots[i]);
  }
}

// out[row] += sum_j weights[row, j] rows[j], for this warp's rows; weights [16, 32].
__device__ __forceinline__ void AddWeighted(const float* weights, const float* rows, int width, int pitch,
                                            float* out) {
  const int first = threadIdx.x / kWarp * kOfWarp;
  for (int c = threadIdx.x % kWarp; c < width; c += kWarp) {
    float sum[kOfWarp];
#pragma unroll
    for (int i = 0; i < kOfWarp; ++i) sum[i] = out[(first + i) * width + c];
    for (int j = 0; j < kKeys; ++j) {
      const float value = rows[j * pitch + c];
#pragma unroll
      for (int i = 0; i < kOfWarp; ++i) sum[i] = __fmaf_rn(weights[(first + i) * kKeys + j], value, sum[i]);
    }
#pragma unroll
    for (int i = 0; i < kOfWarp; ++i) out[(first + i) * width + c] = sum[i];
  }
}

template <typename T>
__device__ __forceinline__ void Write(void* to, int64_t at, bool is_float, bool add, float x) {
  if (is_float) {
    float* out = static_cast<float*>(to) + at;
    *out = add ? *out + x : x;
  } else {
    static_cast<T*>(to)[at] = FromFloat<T>(x);
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    PlainForwardKernel(AttentionCall call, const T* q, const T* k, const T* v, void* y, bool y_is_float,
                       float* lse) {
  const GroupTile tile =
      FindGroupTileByWarp(call.q_offsets, call.sequences, gridDim.x - 1 - blockIdx.x, kQueries);
  if (tile.group < 0) return;
  const AttentionSequence sequence = SequenceOf(call, tile.group);
  const int width = static_cast<int>(call.width), pitch = width + 1 - width % 2;
  const int64_t head = blockIdx.y, g = head / call.heads_of_group();
  const int64_t rows = Least<int64_t>(kQueries, sequence.queries - tile.first);
  const auto query_at = [&](int row) {
    return ((sequence.query + tile.first + row) * call.heads + head) * call.width;
  };
  const int32_t key_end = sequence.sight(tile.first + rows - 1);
  const int first = threadIdx.x / kWarp * kOfWarp, lane = threadIdx.x % kWarp;

  float* queries = reinterpret_cast<float*>(SharedMemory());
  float* keys = queries + kQueries * width;
  float* values = keys + kKeys * pitch;
  float* out = values + kKeys * pitch;
  float* weights = out + kQueries * width;
  LoadRows(q, kQueries, rows, width, width, queries, query_at);
  Clear(out, kQueries * width);
  float top[kOfWarp], sum[kOfWarp];
  int32_t seen[kOfWarp];
  for (int i = 0; i < kOfWarp; ++i) {
    top[i] = kNoScore;
    sum[i] = 0;
    seen[i] = first + i < rows ? sequence.sight(tile.first + first + i) : 0;
  }
  for (int64_t key = 0; key < key_end; key += kKeys) {
    __syncthreads();
    const auto key_at = [&](int row) { return KeyAt(call, sequence, tile.group, key + row, g); };
    LoadRows(k, kKeys, key_end - key, width, pitch, keys, key_at);
    LoadRows(v, kKeys, key_end - key, width, pitch, values, key_at);
    __syncthreads();
    float scores[kOfWarp];
    Dots(queries, keys, width, pitch, scores);
    for (int i = 0; i < kOfWarp; ++i) {
      const float score = key + lane < seen[i] ? scores[i] * call.scale : kNoScore;
      const float here = fmaxf(top[i], WarpMax(score)), base = here == kNoScore ? 0.0f : here;
      const float p = expf(score - base), shrink = expf(top[i] - base);
      top[i] = here;
      sum[i] = __fmaf_rn(sum[i], shrink, WarpSum(p));
      weights[(first + i) * kKeys + lane] = p;
      for (int c = lane; c < width; c += kWarp) out[(first + i) * width + c] *= shrink;
    }
    __syncwarp();  // a warp reads its own rows of weights only
    AddWeighted(weights, values, width, pitch, out);
  }
  __syncthreads();
  for (int i = 0; i < kOfWarp; ++i) {
    if (first + i >= rows) continue;
    const float inverse = sum[i] > 0 ? 1.0f / sum[i] : 0.0f;
    if (lse != nullptr && lane == 0) {
      lse[head * call.tokens + sequence.query + tile.first + first + i] =
          sum[i] > 0 ? top[i] + logf(sum[i]) : kNoScore;
    }
    for (int c = lane; c < width; c += kWarp) {
      Write<T>(y, query_at(first + i) + c, y_is_float, false, out[(first + i) * width + c] * inverse);
    }
  }
}

// p and ds of this warp's queries and a tile of keys, into weights [16, 32] of each; scale is left out of ds.
__device__ __forceinline__ void Gradients(const float* queries, const float* grads, const float* keys,
                                          const float* values, int width, int pitch, float scale, int64_t key,
                                          const int32_t (&seen)[kOfWarp], const float (&lse)[kOfWarp],
                                          const float (&delta)[kOfWarp], float* p, float* ds) {
  const int first = threadIdx.x / kWarp * kOfWarp, lane = threadIdx.x % kWarp;
  float scores[kOfWarp], products[kOfWarp];
  Dots(queries, keys, width, pitch, scores);
  Dots(grads, values, width, pitch, products);
  for (int i = 0; i < kOfWarp; ++i) {
    const float probability = key + lane < seen[i] ? expf(scores[i] * scale - lse[i]) : 0.0f;
    if (p != nullptr) p[(first + i) * kKeys + lane] = probability;
    ds[(first + i) * kKeys + lane] = probability * (products[i] - delta[i]);
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    PlainDqKernel(AttentionCall call, const T* dy, const T* q, const T* k, const T* v, const float* lse,
                  const float* delta, void* dq, bool add) {
  const GroupTile tile =
      FindGroupTileByWarp(call.q_offsets, call.sequences, gridDim.x - 1 - blockIdx.x, kQueries);
  if (tile.group < 0) return;
  const AttentionSequence sequence = SequenceOf(call, tile.group);
  const int width = static_cast<int>(call.width), pitch = width + 1 - width % 2;
  const int64_t head = blockIdx.y, g = head / call.heads_of_group();
  const int64_t rows = Least<int64_t>(kQueries, sequence.queries - tile.first);
  const auto query_at = [&](int row) {
    return ((sequence.query + tile.first + row) * call.heads + head) * call.width;
  };
  const int32_t key_end = sequence.sight(tile.first + rows - 1);
  const int first = threadIdx.x / kWarp * kOfWarp, lane = threadIdx.x % kWarp;

  float* queries = reinterpret_cast<float*>(SharedMemory());
  float* grads = queries + kQueries * width;
  float* keys = grads + kQueries * width;
  float* values = keys + kKeys * pitch;
  float* out = values + kKeys * pitch;
  float* ds = out + kQueries * width;
  LoadRows(q, kQueries, rows, width, width, queries, query_at);
  LoadRows(dy, kQueries, rows, width, width, grads, query_at);
  Clear(out, kQueries * width);
  int32_t seen[kOfWarp];
  float row_lse[kOfWarp], row_delta[kOfWarp];
  for (int i = 0; i < kOfWarp; ++i) {
    const bool there = first + i < rows;
    const int64_t at = head * call.tokens + sequence.query + tile.first + first + i;
    seen[i] = there ? sequence.sight(tile.first + first + i) : 0;
    row_lse[i] = there ? lse[at] : 0.0f;
    row_delta[i] = there ? delta[at] : 0.0f;
  }
  for (int64_t key = 0; key < key_end; key += kKeys) {
    __syncthreads();
    const auto key_at = [&](int row) { return KeyAt(call, sequence, tile.group, key + row, g); };
    LoadRows(k, kKeys, key_end - key, width, pitch, keys, key_at);
    LoadRows(v, kKeys, key_end - key, width, pitch, values, key_at);
    __syncthreads();
    Gradients(queries, grads, keys, values, width, pitch, call.scale, key, seen, row_lse, row_delta, nullptr,
              ds);
    __syncwarp();
    AddWeighted(ds, keys, width, pitch, out);
  }
  __syncthreads();
  for (int i = 0; i < kOfWarp; ++i) {
    if (first + i >= rows) continue;
    for (int c = lane; c < width; c += kWarp) {
      Write<T>(dq, query_at(first + i) + c, add, add, out[(first + i) * width + c] * call.scale);
    }
  }
}

// out[key] += sum over the 16 queries of weights[query, key] rows[query]; a warp has 8 of the keys.
__device__ __forceinline__ void AddToKeys(const float* weights, const float* rows, int width, float* out) {
  constexpr int kOwn = kKeys / kWarps;
  const int first = threadIdx.x / kWarp * kOwn;
  for (int c = threadIdx.x % kWarp; c < width; c += kWarp) {
    float sum[kOwn];
#pragma unroll
    for (int i = 0; i < kOwn; ++i) sum[i] = out[(first + i) * width + c];
    for (int row = 0; row < kQueries; ++row) {
      const float value = rows[row * width + c];
#pragma unroll
      for (int i = 0; i < kOwn; ++i) sum[i] = __fmaf_rn(weights[row * kKeys + first + i], value, sum[i]);
    }
#pragma unroll
    for (int i = 0; i < kOwn; ++i) out[(first + i) * width + c] = sum[i];
  }
}

// dk and dv, or one of the two (the other null) where shared memory has no room for both sums.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    PlainDkvKernel(AttentionCall call, const T* dy, const T* q, const T* k, const T* v, const float* lse,
                   const float* delta, void* dk, void* dv, bool add) {
  const GroupTile tile = FindGroupTileByWarp(call.k_offsets, call.sequences, blockIdx.x, kKeys);
  if (tile.group < 0) return;
  const AttentionSequence sequence = SequenceOf(call, tile.group);
  const int width = static_cast<int>(call.width), pitch = width + 1 - width % 2;
  const int64_t g = blockIdx.y, heads = call.heads_of_group();
  const int64_t rows = Least<int64_t>(kKeys, sequence.keys - tile.first);
  const auto key_at = [&](int row) {
    return ((sequence.key + tile.first + row) * call.groups + g) * call.width;
  };
  const int first = threadIdx.x / kWarp * kOfWarp;

  float* keys = reinterpret_cast<float*>(SharedMemory());
  float* values = keys + kKeys * pitch;
  float* queries = values + kKeys * pitch;
  float* grads = queries + kQueries * width;
  float* p = grads + kQueries * width;
  float* ds = p + kQueries * kKeys;
  float* dk_sum = ds + kQueries * kKeys;
  float* dv_sum = dk_sum + (dk != nullptr ? kKeys * width : 0);
  LoadRows(k, kKeys, rows, width, pitch, keys, key_at);
  LoadRows(v, kKeys, rows, width, pitch, values, key_at);
  if (dk != nullptr) Clear(dk_sum, kKeys * width);
  if (dv != nullptr) Clear(dv_sum, kKeys * width);
  for (int64_t head = g * heads; head < (g + 1) * heads; ++head) {
    for (int64_t query = 0; query < sequence.queries; query += kQueries) {
      const int64_t count = Least<int64_t>(kQueries, sequence.queries - query);
      if (sequence.sight(query + count - 1) <= tile.first) continue;  // the same for all threads
      const auto query_at = [&](int row) {
        return ((sequence.query + query + row) * call.heads + head) * call.width;
      };
      __syncthreads();
      LoadRows(q, kQueries, count, width, width, queries, query_at);
      LoadRows(dy, kQueries, count, width, width, grads, query_at);
      __syncthreads();
      int32_t seen[kOfWarp];
      float row_lse[kOfWarp], row_delta[kOfWarp];
      for (int i = 0; i < kOfWarp; ++i) {
        const bool there = first + i < count;
        const int64_t at = head * call.tokens + sequence.query + query + first + i;
        seen[i] = there ? sequence.sight(query + first + i) : 0;
        row_lse[i] = there ? lse[at] : 0.0f;
        row_delta[i] = there ? delta[at] : 0.0f;
      }
      Gradients(queries, grads, keys, values, width, pitch, call.scale, tile.first, seen, row_lse, row_delta,
                p, ds);
      __syncthreads();
      if (dv != nullptr) AddToKeys(p, grads, width, dv_sum);
      if (dk != nullptr) AddToKeys(ds, queries, width, dk_sum);
    }
  }
  __syncthreads();
  for (int row = threadIdx.x / kWarp; row < rows; row += kWarps) {
    for (int c = threadIdx.x % kWarp; c < width; c += kWarp) {
      if (dk != nullptr) Write<T>(dk, key_at(row) + c, add, add, dk_sum[row * width + c] * call.scale);
      if (dv != nullptr) Write<T>(dv, key_at(row) + c, add, add, dv_sum[row * width + c]);
    }
  }
}

size_t Bytes(int64_t floats) { return static_cast<size_t>(floats) * sizeof(float); }
dim3 GridOf(const AttentionCall& call, int64_t rows, int tile_rows, int64_t heads) {
  return dim3(static_cast<unsigned>(MostGroupTiles(rows, call.sequences, tile_rows)),
              static_cast<unsigned>(heads));
}

}  // namespace

size_t PlainForwardShared(int64_t width) {
  return Bytes(2 * kQueries * width + 2 * kKeys * (width + 1) + kQueries * kKeys);
}
namespace {
size_t DkvShared(int64_t width, int sums) {
  return Bytes(2 * kKeys * (width + 1) + 2 * kQueries * width + sums * kKeys * width + 2 * kQueries * kKeys);
}
size_t DqShared(int64_t width) {
  return Bytes(2 * kKeys * (width + 1) + 3 * kQueries * width + kQueries * kKeys);
}
}  // namespace
size_t PlainBackwardShared(int64_t width) { return Most(DqShared(width), DkvShared(width, 1)); }

template <typename T>
void PlainForward(const Queue& queue, const AttentionCall& call, const T* q, const T* k, const T* v, void* y,
                  bool y_is_float, float* lse) {
  Launch(queue, PlainForwardKernel<T>, GridOf(call, call.tokens, kQueries, call.heads), kThreads,
         PlainForwardShared(call.width), call, q, k, v, y, y_is_float, lse);
}
template void PlainForward(const Queue&, const AttentionCall&, const float*, const float*, const float*,
                           void*, bool, float*);
template void PlainForward(const Queue&, const AttentionCall&, const Bf16*, const Bf16*, const Bf16*, void*,
                           bool, float*);

template <typename T>
void PlainBackward(const Queue& queue, const AttentionCall& call, const T* dy, const T* q, const T* k,
                   const T* v, const float* lse, const float* delta, const AttentionGrads& grads) {
  Launch(queue, PlainDqKernel<T>, GridOf(call, call.tokens, kQueries, call.heads), kThreads,
         DqShared(call.width), call, dy, q, k, v, lse, delta, grads.dq, grads.add);
  const dim3 grid = GridOf(call, call.keys, kKeys, call.groups);
  const auto dkv = [&](void* dk, void* dv, int sums) {
    Launch(queue, PlainDkvKernel<T>, grid, kThreads, DkvShared(call.width, sums), call, dy, q, k, v, lse,
           delta, dk, dv, grads.add);
  };
  if (DkvShared(call.width, 2) <= static_cast<size_t>(queue.shared_limit)) return dkv(grads.dk, grads.dv, 2);
  dkv(grads.dk, nullptr, 1);
  dkv(nullptr, grads.dv, 1);
}
template void PlainBackward(const Queue&, const AttentionCall&, const float*, const float*, const float*,
                            const float*, const float*, const float*, const AttentionGrads&);
template void PlainBackward(const Queue&, const AttentionCall&, const Bf16*, const Bf16*, const Bf16*,
                            const Bf16*, const float*, const float*, const AttentionGrads&);

}  // namespace cohort::runtime::COHORT_CUDA
