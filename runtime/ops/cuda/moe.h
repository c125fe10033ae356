// The kernels of router_rows.cu, expert_order.cu, combine.cu and balance.cu: what surrounds the experts' products. All
// of f32 but the token rows.
#pragma once

#include "runtime/ops/cuda/element.h"
#include "runtime/ops/cuda/launch.h"

namespace cohort::runtime::COHORT_CUDA {

// ---- rows [rows, n] of f32 ----
void SoftmaxRows(const Queue& queue, const float* x, float* y, int64_t rows, int64_t n);
void SoftmaxGradRows(const Queue& queue, const float* dy, const float* y, float* dx, int64_t rows, int64_t n);
void LogSumExpRows(const Queue& queue, const float* x, float* lse, int64_t rows, int64_t n);
void NormalizeRowsOf(const Queue& queue, const float* x, float* y, int64_t rows, int64_t n);
void NormalizeGradRows(const Queue& queue, const float* dy, const float* x, const float* y, float* dx,
                       int64_t rows, int64_t n);
// losses[t] = lse^2; dlogits, where not null, += grad_scale x its gradient.
void RouterZLossRows(const Queue& queue, const float* logits, float grad_scale, float* losses, float* dlogits,
                     int64_t rows, int64_t n);
void SigmoidElements(const Queue& queue, const float* x, float* y, int64_t n);
void SigmoidGradElements(const Queue& queue, const float* dy, const float* y, float* dx, int64_t n);
// bias may be null; k <= n.
void TopKRows(const Queue& queue, const float* scores, const float* bias, int32_t* indices, int64_t rows,
              int64_t n, int64_t k);
void GatherColumnsOf(const Queue& queue, const float* x, const int32_t* indices, float* y, int64_t rows,
                     int64_t n, int64_t k);
void GatherColumnsGradOf(const Queue& queue, const float* dy, const int32_t* indices, float* dx, int64_t rows,
                         int64_t n, int64_t k);

// ---- the order of choices by expert ----
// Choices are cut into SortChunks pieces, whose choices of each expert are counted in counts [SortChunks, experts].
__host__ __device__ constexpr int64_t SortChunk(int64_t choices) {
  return RoundUp(Most<int64_t>(1024, CeilDiv(choices, 512)), kWarp);
}
__host__ __device__ constexpr int64_t SortChunks(int64_t choices) {
  return CeilDiv(choices, SortChunk(choices));
}
void SortChoices(const Queue& queue, const int32_t* indices, int32_t* counts, int32_t* offsets,
                 int32_t* order, int32_t* places, int64_t choices, int64_t experts);
void DropChoices(const Queue& queue, const int32_t* indices, const int32_t* offsets, int32_t* kept,
                 int64_t sequences, int64_t k, int64_t experts, double factor);

// ---- token rows [., width] ----
// weights may be null.
template <typename T>
void CombineTokenRows(const Queue& queue, const T* x, int64_t rows, const int32_t* places,
                      const float* weights, T* y, int64_t tokens, int64_t k, int64_t width);
// dweights (and then x) may be null.
template <typename T>
void CombineGradRows(const Queue& queue, const T* dy, const T* x, const int32_t* places, const float* weights,
                     T* dx, int64_t rows, float* dweights, int64_t tokens, int64_t k, int64_t width);

// ---- the balance loss ----
void BalanceCountsOf(const Queue& queue, const float* probs, const int32_t* indices, const int32_t* offsets,
                     float* counts, float* sums, int64_t sequences, int64_t experts, int64_t k);
// lengths null: those of the offsets. dprobs may be null.
void BalanceLossOf(const Queue& queue, const float* counts, const float* sums, const int32_t* lengths,
                   int64_t choices, float grad_scale, const int32_t* offsets, float* losses, float* dprobs,
                   int64_t sequences, int64_t experts);

}  // namespace cohort::runtime::COHORT_CUDA
