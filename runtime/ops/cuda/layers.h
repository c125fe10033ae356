// The kernels of rms_norm.cu, rope.cu and embedding.cu.
#pragma once

#include "runtime/ops/cuda/element.h"
#include "runtime/ops/cuda/launch.h"

namespace cohort::runtime::COHORT_CUDA {

// T float or Bf16 everywhere; rows [rows, d].
// sum = x + residual where residual is not null; rstd, y of x or of the sum.
template <typename T>
void RmsNormRows(const Queue& queue, const T* x, const T* residual, const T* w, float eps, T* sum, T* y,
                 float* rstd, int64_t rows, int64_t d);
// add may be null.
template <typename T>
void RmsNormGradRows(const Queue& queue, const T* dy, const T* x, const T* w, const float* rstd, const T* add,
                     T* dx, int64_t rows, int64_t d);
// dw += sum_t dy x rstd, through partial sums [NormChunks(rows), d] of some rows each.
__host__ __device__ constexpr int64_t NormChunkRows(int64_t rows) {
  return Most<int64_t>(64, CeilDiv(rows, 256));
}
__host__ __device__ constexpr int64_t NormChunks(int64_t rows) { return CeilDiv(rows, NormChunkRows(rows)); }
template <typename T>
void RmsNormWeightGradRows(const Queue& queue, const T* dy, const T* x, const float* rstd, float* partial,
                           float* dw, int64_t rows, int64_t d);

// In place; sign -1 turns backwards.
template <typename T>
void RopeRows(const Queue& queue, T* x, const int32_t* positions, const float* table, int64_t max_position,
              float sign, int64_t tokens, int64_t heads, int64_t width);

// y[t] = table[rows[t]], zeros where negative; rows of any type.
void GatherRowBytes(const Queue& queue, const void* table, int64_t table_rows, const int32_t* rows, void* y,
                    int64_t count, int64_t row_bytes);
// dtable[tokens[t]] += dy[t], in order of t.
template <typename T>
void EmbeddingGradRows(const Queue& queue, const T* dy, const int32_t* tokens, float* dtable, int64_t count,
                       int64_t vocabulary, int64_t d);
// Rows of k and v into pages [P, G, page_size, row_bytes].
void StoreKvBytes(const Queue& queue, const void* k, const void* v, const int32_t* slots, void* keys,
                  void* values, int64_t tokens, int64_t groups, int64_t page_size, int64_t pages,
                  int64_t row_bytes);

}  // namespace cohort::runtime::COHORT_CUDA
