// The loss over a split vocabulary (Shoeybi et al., 2019, section 3), in the steps between which ranks talk.
#include "runtime/ops/cuda/for_groups.h"
#include "runtime/ops/cuda/loss.h"
#include "runtime/ops/cuda/softmax_stats.h"

namespace cohort::runtime::COHORT_CUDA {
namespace {

constexpr float kMinusInfinity = -__builtin_inff();

template <typename T>
__global__ void __launch_bounds__(kRowThreads)
    StatsKernel(const T* logits, const int32_t* targets, int64_t first, float* max, float* sum,
                float* target_logit, int64_t v, bool wide) {
  __shared__ double room[kWarp];
  const int64_t row = blockIdx.x;
  const int64_t target = targets[row];
  RowStats stats = {0, 0};
  if (target >= 0) {
    stats = SoftmaxStats(logits + row * v, v, wide, room);
    if (stats.sum == 0) stats.max = kMinusInfinity;
  }
  if (threadIdx.x != 0) return;
  max[row] = stats.max;
  sum[row] = static_cast<float>(stats.sum);
  const bool here = target >= 0 && target >= first && target < first + v;
  target_logit[row] = here ? ToFloat(logits[row * v + target - first]) : 0.0f;
}

struct RescaleBody {
  const float *max, *global_max;
  float* sum;
  __device__ void operator()(int64_t t) const {
    if (sum[t] != 0) sum[t] *= expf(max[t] - global_max[t]);
  }
};

struct LossBody {
  const int32_t* targets;
  const float *max, *sum, *target_logit;
  float *lse, *losses;
  __device__ void operator()(int64_t t) const {
    const bool counts = targets[t] >= 0;
    const float top = counts ? max[t] : 0.0f, log_sum = counts ? logf(sum[t]) : 0.0f;
    const float loss = counts ? log_sum + (top - target_logit[t]) : 0.0f;
    lse[t] = top + log_sum;
    losses[t] = loss;
  }
};

template <typename T>
__global__ void __launch_bounds__(kRowThreads)
    GradKernel(const T* logits, const int32_t* targets, int64_t first, const float* lse, float grad_scale,
               T* dlogits, int64_t v, bool wide) {
  const int64_t row = blockIdx.x, begin = row * v;
  const int32_t target = targets[row];
  const int64_t here = target - first;
  const float shift = lse[row];
  for (int64_t i = threadIdx.x * kGroup; i < v; i += static_cast<int64_t>(kRowThreads) * kGroup) {
    const int count = static_cast<int>(v - i < kGroup ? v - i : kGroup);
    float x[kGroup] = {};
    if (target >= 0) {
      Load8(logits + begin + i, wide, count, x);
#pragma unroll
      for (int j = 0; j < kGroup; ++j)
        x[j] = grad_scale * (expf(x[j] - shift) - (i + j == here ? 1.0f : 0.0f));
    }
    Store8(dlogits + begin + i, wide, count, x);
  }
}

}  // namespace

template <typename T>
void VocabularyStatsRows(const Queue& queue, const T* logits, const int32_t* targets, int64_t first,
                         float* max, float* sum, float* target_logit, int64_t rows, int64_t v) {
  Launch(queue, StatsKernel<T>, static_cast<unsigned>(rows), kRowThreads, 0, logits, targets, first, max, sum,
         target_logit, v, WideGroups(v, logits));
}
template void VocabularyStatsRows(const Queue&, const float*, const int32_t*, int64_t, float*, float*, float*,
                                  int64_t, int64_t);
template void VocabularyStatsRows(const Queue&, const Bf16*, const int32_t*, int64_t, float*, float*, float*,
                                  int64_t, int64_t);

void VocabularyRescaleRows(const Queue& queue, const float* max, const float* global_max, float* sum,
                           int64_t rows) {
  LaunchEach(queue, RescaleBody{max, global_max, sum}, rows);
}

void VocabularyLossRows(const Queue& queue, const int32_t* targets, const float* max, const float* sum,
                        const float* target_logit, float* lse, float* losses, int64_t rows) {
  LaunchEach(queue, LossBody{targets, max, sum, target_logit, lse, losses}, rows);
}

template <typename T>
void VocabularyGradRows(const Queue& queue, const T* logits, const int32_t* targets, int64_t first,
                        const float* lse, float grad_scale, T* dlogits, int64_t rows, int64_t v) {
  Launch(queue, GradKernel<T>, static_cast<unsigned>(rows), kRowThreads, 0, logits, targets, first, lse,
         grad_scale, dlogits, v, WideGroups(v, logits, dlogits));
}
template void VocabularyGradRows(const Queue&, const float*, const int32_t*, int64_t, const float*, float,
                                 float*, int64_t, int64_t);
template void VocabularyGradRows(const Queue&, const Bf16*, const int32_t*, int64_t, const float*, float,
                                 Bf16*, int64_t, int64_t);

}  // namespace cohort::runtime::COHORT_CUDA
