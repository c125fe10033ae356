// Row functions of the router: a warp a row of as many numbers as there are experts. Lanes come back to their own
// elements in every pass, so outputs may lie over inputs.
#include "runtime/ops/cuda/for_groups.h"
#include "runtime/ops/cuda/moe.h"
#include "runtime/ops/cuda/reduce.h"

namespace cohort::runtime::COHORT_CUDA {
namespace {

constexpr int kThreads = 128;
constexpr int kRows = kThreads / kWarp;  // of a block

__device__ __forceinline__ int64_t RowOfWarp() {
  return static_cast<int64_t>(blockIdx.x) * kRows + threadIdx.x / kWarp;
}
__device__ __forceinline__ int LaneOfWarp() { return static_cast<int>(threadIdx.x % kWarp); }

// max and sum of exp(x - max) of a row; n > 0.
__device__ __forceinline__ float RowMax(const float* row, int64_t n) {
  float top = row[0];
  for (int64_t i = LaneOfWarp(); i < n; i += kWarp) top = fmaxf(top, row[i]);
  return WarpMax(top);
}
__device__ __forceinline__ float RowSumExp(const float* row, int64_t n, float top) {
  float sum = 0;
  for (int64_t i = LaneOfWarp(); i < n; i += kWarp) sum += expf(row[i] - top);
  return WarpSum(sum);
}

__global__ void __launch_bounds__(kThreads) SoftmaxKernel(const float* x, float* y, int64_t rows, int64_t n) {
  const int64_t t = RowOfWarp();
  if (t >= rows) return;
  const float top = RowMax(x + t * n, n), sum = RowSumExp(x + t * n, n, top);
  for (int64_t i = LaneOfWarp(); i < n; i += kWarp) y[t * n + i] = expf(x[t * n + i] - top) / sum;
}

__global__ void __launch_bounds__(kThreads)
    SoftmaxGradKernel(const float* dy, const float* y, float* dx, int64_t rows, int64_t n) {
  const int64_t t = RowOfWarp();
  if (t >= rows) return;
  float dot = 0;
  for (int64_t i = t * n + LaneOfWarp(); i < (t + 1) * n; i += kWarp) dot = __fmaf_rn(dy[i], y[i], dot);
  dot = WarpSum(dot);
  for (int64_t i = t * n + LaneOfWarp(); i < (t + 1) * n; i += kWarp) dx[i] = y[i] * (dy[i] - dot);
}

__global__ void __launch_bounds__(kThreads)
    LogSumExpKernel(const float* x, float* lse, int64_t rows, int64_t n) {
  const int64_t t = RowOfWarp();
  if (t >= rows) return;
  const float top = RowMax(x + t * n, n), sum = RowSumExp(x + t * n, n, top);
  if (LaneOfWarp() == 0) lse[t] = top + logf(sum);
}

__global__ void __launch_bounds__(kThreads)
    NormalizeKernel(const float* x, float* y, int64_t rows, int64_t n) {
  const int64_t t = RowOfWarp();
  if (t >= rows) return;
  float sum = 0;
  for (int64_t i = t * n + LaneOfWarp(); i < (t + 1) * n; i += kWarp) sum += x[i];
  sum = WarpSum(sum);
  for (int64_t i = t * n + LaneOfWarp(); i < (t + 1) * n; i += kWarp) y[i] = x[i] / sum;
}

// In double: dy - dot cancels where a row has one large number.
__global__ void __launch_bounds__(kThreads)
    NormalizeGradKernel(const float* dy, const float* x, const float* y, float* dx, int64_t rows, int64_t n) {
  const int64_t t = RowOfWarp();
  if (t >= rows) return;
  double sum = 0, dot = 0;
  for (int64_t i = t * n + LaneOfWarp(); i < (t + 1) * n; i += kWarp) {
    sum += x[i];
    dot += static_cast<double>(dy[i]) * y[i];
  }
  sum = WarpSum(sum);
  dot = WarpSum(dot);
  for (int64_t i = t * n + LaneOfWarp(); i < (t + 1) * n; i += kWarp) {
    dx[i] = static_cast<float>((dy[i] - dot) / sum);
  }
}

__global__ void __launch_bounds__(kThreads)
    RouterZLossKernel(const float* logits, float grad_scale, float* losses, float* dlogits, int64_t rows,
                      int64_t n) {
  const int64_t t = RowOfWarp();
  if (t >= rows) return;
  const float top = RowMax(logits + t * n, n), sum = RowSumExp(logits + t * n, n, top);
  const float lse = top + logf(sum);
  if (LaneOfWarp() == 0) losses[t] = lse * lse;
  if (dlogits == nullptr) return;
  const float factor = grad_scale * 2.0f * lse / sum;
  for (int64_t i = t * n + LaneOfWarp(); i < (t + 1) * n; i += kWarp) {
    dlogits[i] = __fmaf_rn(factor, expf(logits[i] - top), dlogits[i]);
  }
}

// A candidate for the next best: the larger score first, the lower index among equals. index < 0: none.
struct Candidate {
  float score;
  int32_t index;
};
__device__ __forceinline__ bool Before(Candidate a, Candidate b) {
  if (a.index < 0) return false;
  return b.index < 0 || a.score > b.score || (a.score == b.score && a.index < b.index);
}

// k rounds, each over those that come after the last one found. What is not a number counts as -inf.
__global__ void __launch_bounds__(kThreads)
    TopKKernel(const float* scores, const float* bias, int32_t* indices, int64_t rows, int64_t n, int64_t k) {
  const int64_t t = RowOfWarp();
  if (t >= rows) return;
  Candidate last = {0, -1};
  for (int64_t round = 0; round < k; ++round) {
    Candidate best = {0, -1};
    for (int64_t e = LaneOfWarp(); e < n; e += kWarp) {
      Candidate here = {scores[t * n + e] + (bias != nullptr ? bias[e] : 0.0f), static_cast<int32_t>(e)};
      if (here.score != here.score) here.score = -__builtin_inff();
      if ((last.index < 0 || Before(last, here)) && Before(here, best)) best = here;
    }
#pragma unroll
    for (int step = kWarp / 2; step > 0; step /= 2) {
      const Candidate other = {__shfl_xor_sync(kAllLanes, best.score, step),
                               __shfl_xor_sync(kAllLanes, best.index, step)};
      if (Before(other, best)) best = other;
    }
    if (LaneOfWarp() == 0) indices[t * k + round] = best.index;
    last = best;
  }
}

struct SigmoidBody {
  const float* x;
  float* y;
  __device__ void operator()(int64_t i) const { y[i] = 1.0f / (1.0f + expf(-x[i])); }
};
struct SigmoidGradBody {
  const float *dy, *y;
  float* dx;
  __device__ void operator()(int64_t i) const { dx[i] = dy[i] * y[i] * (1.0f - y[i]); }
};
struct GatherColumnsBody {
  const float* x;
  const int32_t* indices;
  float* y;
  int64_t n, k;
  __device__ void operator()(int64_t i) const {
    CheckOnDevice(indices[i] >= 0 && indices[i] < n);
    y[i] = x[i / k * n + indices[i]];
  }
};
// A row a thread, which adds in order: a column may be named twice.
struct GatherColumnsGradBody {
  const float* dy;
  const int32_t* indices;
  float* dx;
  int64_t n, k;
  __device__ void operator()(int64_t t) const {
    for (int64_t i = t * k; i < (t + 1) * k; ++i) {
      CheckOnDevice(indices[i] >= 0 && indices[i] < n);
      dx[t * n + indices[i]] += dy[i];
    }
  }
};

unsigned BlocksOfRows(int64_t rows) { return static_cast<unsigned>(CeilDiv(rows, kRows)); }

}  // namespace

void SoftmaxRows(const Queue& queue, const float* x, float* y, int64_t rows, int64_t n) {
  if (n > 0) Launch(queue, SoftmaxKernel, BlocksOfRows(rows), kThreads, 0, x, y, rows, n);
}
void SoftmaxGradRows(const Queue& queue, const float* dy, const float* y, float* dx, int64_t rows,
                     int64_t n) {
  Launch(queue, SoftmaxGradKernel, BlocksOfRows(rows), kThreads, 0, dy, y, dx, rows, n);
}
void LogSumExpRows(const Queue& queue, const float* x, float* lse, int64_t rows, int64_t n) {
  if (n > 0) Launch(queue, LogSumExpKernel, BlocksOfRows(rows), kThreads, 0, x, lse, rows, n);
}
void NormalizeRowsOf(const Queue& queue, const float* x, float* y, int64_t rows, int64_t n) {
  Launch(queue, NormalizeKernel, BlocksOfRows(rows), kThreads, 0, x, y, rows, n);
}
void NormalizeGradRows(const Queue& queue, const float* dy, const float* x, const float* y, float* dx,
                       int64_t rows, int64_t n) {
  Launch(queue, NormalizeGradKernel, BlocksOfRows(rows), kThreads, 0, dy, x, y, dx, rows, n);
}
void RouterZLossRows(const Queue& queue, const float* logits, float grad_scale, float* losses, float* dlogits,
                     int64_t rows, int64_t n) {
  if (n > 0) {
    Launch(queue, RouterZLossKernel, BlocksOfRows(rows), kThreads, 0, logits, grad_scale, losses, dlogits,
           rows, n);
  }
}
void SigmoidElements(const Queue& queue, const float* x, float* y, int64_t n) {
  LaunchEach(queue, SigmoidBody{x, y}, n);
}
void SigmoidGradElements(const Queue& queue, const float* dy, const float* y, float* dx, int64_t n) {
  LaunchEach(queue, SigmoidGradBody{dy, y, dx}, n);
}
void TopKRows(const Queue& queue, const float* scores, const float* bias, int32_t* indices, int64_t rows,
              int64_t n, int64_t k) {
  if (k > 0) Launch(queue, TopKKernel, BlocksOfRows(rows), kThreads, 0, scores, bias, indices, rows, n, k);
}
void GatherColumnsOf(const Queue& queue, const float* x, const int32_t* indices, float* y, int64_t rows,
                     int64_t n, int64_t k) {
  LaunchEach(queue, GatherColumnsBody{x, indices, y, n, k}, rows * k);
}
void GatherColumnsGradOf(const Queue& queue, const float* dy, const int32_t* indices, float* dx, int64_t rows,
                         int64_t n, int64_t k) {
  LaunchEach(queue, GatherColumnsGradBody{dy, indices, dx, n, k}, rows);
}

}  // namespace cohort::runtime::COHORT_CUDA
