// Gathering rows of a table, the gradient of an embedding, and writing keys and values into pages: what moves rows.
#include "runtime/ops/cuda/layers.h"
#include "runtime/ops/cuda/reduce.h"

namespace cohort::runtime::COHORT_CUDA {
namespace {

constexpr int kThreads = 128;

// U: the widest type that rows and addresses are multiples of.
template <typename U>
__global__ void __launch_bounds__(kThreads)
    GatherKernel(const U* table, int64_t table_rows, const int32_t* rows, U* y, int64_t units) {
  const int32_t row = rows[blockIdx.x];
  CheckOnDevice(row < table_rows);
  U* to = y + static_cast<int64_t>(blockIdx.x) * units;
  const U* from = table + static_cast<int64_t>(row) * units;
  for (int64_t i = threadIdx.x; i < units; i += kThreads) to[i] = row < 0 ? U{} : from[i];
}

template <typename U>
__global__ void __launch_bounds__(kThreads)
    StoreKernel(const U* k, const U* v, const int32_t* slots, U* keys, U* values, int64_t groups,
                int64_t page_size, int64_t pages, int64_t units) {
  const int64_t slot = slots[blockIdx.x];
  CheckOnDevice(slot >= 0 && slot < pages * page_size);
  const int64_t page = slot / page_size, place = slot % page_size;
  for (int64_t i = threadIdx.x; i < groups * units; i += kThreads) {
    const int64_t to = ((page * groups + i / units) * page_size + place) * units + i % units;
    const int64_t from = static_cast<int64_t>(blockIdx.x) * groups * units + i;
    keys[to] = k[from];
    values[to] = v[from];
  }
}

// body(U{}) with the widest U that divides all of `bits` (addresses and row sizes, or'ed).
template <typename Body>
void WithUnit(uint64_t bits, const Body& body) {
  if (bits % 16 == 0) return body(uint4{});
  if (bits % 4 == 0) return body(uint32_t{});
  if (bits % 2 == 0) return body(uint16_t{});
  body(uint8_t{});
}
uint64_t Bits(const void* p) { return reinterpret_cast<uintptr_t>(p); }

constexpr int kScanThreads = 256;
constexpr int kScanTokens = 8;  // that a thread looks at in a turn
constexpr int kChunk = kScanThreads * kScanTokens;

// The block of token t (blockIdx.x) adds up all rows of dy whose token is the same, if t is the first of them: a row of
// dtable has one owner, who adds in order of t. Finding out who is first reads the tokens before t, finding the others
// those after: T^2 / 2 numbers in all at most, from the second-level cache. blockIdx.y: which 2048 columns.
template <typename T>
__global__ void __launch_bounds__(kScanThreads)
    EmbeddingGradKernel(const T* dy, const int32_t* tokens, float* dtable, int64_t count, int64_t vocabulary,
                        int64_t d, bool wide) {
  __shared__ uint8_t matches[kScanThreads];  // a bit a token of the chunk
  const int64_t t = blockIdx.x;
  const int32_t row = tokens[t];
  if (row < 0) return;
  CheckOnDevice(row < vocabulary);
  for (int64_t chunk = 0; chunk < t; chunk += kChunk) {
    int found = 0;
    for (int j = 0; j < kScanTokens; ++j) {
      const int64_t other = chunk + j * kScanThreads + threadIdx.x;
      if (other < t && tokens[other] == row) found = 1;
    }
    if (__syncthreads_or(found)) return;
  }
  const int64_t i = (static_cast<int64_t>(blockIdx.y) * kScanThreads + threadIdx.x) * kGroup;
  const int columns = static_cast<int>(Most<int64_t>(0, Least<int64_t>(kGroup, d - i)));
  float* to = dtable + static_cast<int64_t>(row) * d + i;
  float sum[kGroup] = {};
  if (columns > 0) Load8(to, wide, columns, sum);
  for (int64_t chunk = t / kChunk * kChunk; chunk < count; chunk += kChunk) {
    unsigned bits = 0;
    for (int j = 0; j < kScanTokens; ++j) {
      const int64_t other = chunk + threadIdx.x * kScanTokens + j;
      if (other >= t && other < count && tokens[other] == row) bits |= 1u << j;
    }
    if (!__syncthreads_or(bits != 0)) continue;  // and all have read the matches of the chunk before
    matches[threadIdx.x] = static_cast<uint8_t>(bits);
    __syncthreads();
    for (int group = 0; group < kScanThreads; ++group) {
      for (unsigned left = matches[group]; left != 0; left &= left - 1) {
        const int64_t other = chunk + group * kScanTokens + __ffs(left) - 1;
        if (columns <= 0) continue;
        float g[kGroup];
        Load8(dy + other * d + i, wide, columns, g);
#pragma unroll
        for (int j = 0; j < kGroup; ++j) sum[j] += g[j];
      }
    }
  }
  if (columns > 0) Store8(to, wide, columns, sum);
}

}  // namespace

void GatherRowBytes(const Queue& queue, const void* table, int64_t table_rows, const int32_t* rows, void* y,
                    int64_t count, int64_t row_bytes) {
  if (row_bytes == 0) return;
  WithUnit(Bits(table) | Bits(y) | static_cast<uint64_t>(row_bytes), [&](auto unit) {
    using U = decltype(unit);
    Launch(queue, GatherKernel<U>, static_cast<unsigned>(count), kThreads, 0, static_cast<const U*>(table),
           table_rows, rows, static_cast<U*>(y), row_bytes / static_cast<int64_t>(sizeof(U)));
  });
}

void StoreKvBytes(const Queue& queue, const void* k, const void* v, const int32_t* slots, void* keys,
                  void* values, int64_t tokens, int64_t groups, int64_t page_size, int64_t pages,
                  int64_t row_bytes) {
  if (groups == 0 || row_bytes == 0) return;
  WithUnit(Bits(k) | Bits(v) | Bits(keys) | Bits(values) | static_cast<uint64_t>(row_bytes), [&](auto unit) {
    using U = decltype(unit);
    Launch(queue, StoreKernel<U>, static_cast<unsigned>(tokens), kThreads, 0, static_cast<const U*>(k),
           static_cast<const U*>(v), slots, static_cast<U*>(keys), static_cast<U*>(values), groups, page_size,
           pages, row_bytes / static_cast<int64_t>(sizeof(U)));
  });
}

template <typename T>
void EmbeddingGradRows(const Queue& queue, const T* dy, const int32_t* tokens, float* dtable, int64_t count,
                       int64_t vocabulary, int64_t d) {
  const dim3 grid(static_cast<unsigned>(count), static_cast<unsigned>(CeilDiv(d, kScanThreads * kGroup)));
  Launch(queue, EmbeddingGradKernel<T>, grid, kScanThreads, 0, dy, tokens, dtable, count, vocabulary, d,
         WideGroups(d, dy, dtable));
}
template void EmbeddingGradRows(const Queue&, const float*, const int32_t*, float*, int64_t, int64_t,
                                int64_t);
template void EmbeddingGradRows(const Queue&, const Bf16*, const int32_t*, float*, int64_t, int64_t, int64_t);

}  // namespace cohort::runtime::COHORT_CUDA
