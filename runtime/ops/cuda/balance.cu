// The sequence-wise balance loss, in the two steps of BalanceCounts and BalanceLossFromCounts.
#include "runtime/ops/cuda/moe.h"
#include "runtime/ops/cuda/reduce.h"

namespace cohort::runtime::COHORT_CUDA {
namespace {

constexpr int kThreads = 512;
constexpr int kWarps = kThreads / kWarp;

// A block for a sequence (blockIdx.x) and 32 experts (blockIdx.y), a lane each. Warps share the tokens; their sums are
// added in the order of warps.
__global__ void __launch_bounds__(kThreads)
    CountsKernel(const float* probs, const int32_t* indices, const int32_t* offsets, float* counts,
                 float* sums, int64_t experts, int64_t k) {
  __shared__ int32_t warp_counts[kWarps][kWarp];
  __shared__ double warp_sums[kWarps][kWarp];
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const int64_t e = static_cast<int64_t>(blockIdx.y) * kWarp + lane;
  int32_t count = 0;
  double sum = 0;
  for (int64_t t = offsets[blockIdx.x] + warp; t < offsets[blockIdx.x + 1]; t += kWarps) {
    for (int64_t j = 0; j < k; ++j) {
      const int32_t chosen = indices[t * k + j];
      CheckOnDevice(chosen >= 0 && chosen < experts);
      count += chosen == e;
    }
    if (e < experts) sum += probs[t * experts + e];
  }
  warp_counts[warp][lane] = count;
  warp_sums[warp][lane] = sum;
  __syncthreads();
  if (warp != 0 || e >= experts) return;
  for (int w = 1; w < kWarps; ++w) {
    count += warp_counts[w][lane];
    sum += warp_sums[w][lane];
  }
  counts[blockIdx.x * experts + e] = static_cast<float>(count);
  sums[blockIdx.x * experts + e] = static_cast<float>(sum);
}

__device__ __forceinline__ double LengthOf(const int32_t* lengths, const int32_t* offsets, int64_t s) {
  return lengths != nullptr ? lengths[s] : offsets[s + 1] - offsets[s];
}

// A warp a sequence.
__global__ void __launch_bounds__(kWarp)
    LossKernel(const float* counts, const float* sums, const int32_t* lengths, double choices,
               const int32_t* offsets, float* losses, int64_t experts) {
  const int64_t s = blockIdx.x;
  const double length = LengthOf(lengths, offsets, s);
  CheckOnDevice(offsets[s + 1] - offsets[s] <= length);
  double loss = 0;
  for (int64_t e = threadIdx.x; e < experts && length > 0; e += kWarp) {
    loss += counts[s * experts + e] / (length * choices) * sums[s * experts + e];
  }
  loss = WarpSum(loss);
  if (threadIdx.x == 0) {
    losses[s] = length > 0 ? static_cast<float>(loss * static_cast<double>(experts) / length) : 0.0f;
  }
}

// dprobs[t, e] += grad_scale experts share / length, for the tokens of sequence blockIdx.x.
__global__ void __launch_bounds__(kThreads)
    GradKernel(const float* counts, const int32_t* lengths, double choices, double grad_scale,
               const int32_t* offsets, float* dprobs, int64_t experts) {
  const int64_t s = blockIdx.x;
  const double length = LengthOf(lengths, offsets, s);
  const int64_t end = offsets[s + 1] * experts, step = static_cast<int64_t>(gridDim.y) * kThreads;
  for (int64_t i = offsets[s] * experts + static_cast<int64_t>(blockIdx.y) * kThreads + threadIdx.x; i < end;
       i += step) {
    const double share = counts[s * experts + i % experts] / (length * choices);
    dprobs[i] += static_cast<float>(grad_scale * static_cast<double>(experts) * share / length);
  }
}

}  // namespace

void BalanceCountsOf(const Queue& queue, const float* probs, const int32_t* indices, const int32_t* offsets,
                     float* counts, float* sums, int64_t sequences, int64_t experts, int64_t k) {
  const dim3 grid(static_cast<unsigned>(sequences), static_cast<unsigned>(CeilDiv(experts, kWarp)));
  Launch(queue, CountsKernel, grid, kThreads, 0, probs, indices, offsets, counts, sums, experts, k);
}

void BalanceLossOf(const Queue& queue, const float* counts, const float* sums, const int32_t* lengths,
                   int64_t choices, float grad_scale, const int32_t* offsets, float* losses, float* dprobs,
                   int64_t sequences, int64_t experts) {
  const unsigned blocks = static_cast<unsigned>(sequences);
  Launch(queue, LossKernel, blocks, kWarp, 0, counts, sums, lengths, choices, offsets, losses, experts);
  if (dprobs == nullptr || experts == 0) return;
  const unsigned share =
      static_cast<unsigned>(CeilDiv(queue.multiprocessors * 2, Most<int64_t>(1, sequences)));
  Launch(queue, GradKernel, dim3(blocks, share), kThreads, 0, counts, lengths, choices, grad_scale, offsets,
         dprobs, experts);
}

}  // namespace cohort::runtime::COHORT_CUDA
