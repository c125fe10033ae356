// The loss of next-token prediction and its gradient: a block a row, a pass for the maximum and the sum, a second one,
// which finds the row in the second-level cache, for the gradient. The gradient is written once, over the logits where
// the caller wants that.
#include "runtime/ops/cuda/loss.h"
#include "runtime/ops/cuda/softmax_stats.h"

namespace cohort::runtime::COHORT_CUDA {
namespace {

template <typename T>
__global__ void __launch_bounds__(kRowThreads)
    CrossEntropyKernel(const T* logits, const int32_t* targets, float grad_scale, float* losses, T* dlogits,
                       int64_t v, bool wide) {
  __shared__ double room[kWarp];
  const int64_t row = blockIdx.x, begin = row * v;
  const int32_t target = targets[row];
  CheckOnDevice(target < v);
  RowStats stats = {0, 1};
  double at_target = 0;
  if (target >= 0) {
    at_target = ToFloat(logits[begin + target]);          // before anything is written over it
    stats = SoftmaxStats(logits + begin, v, wide, room);  // barriers inside
    if (threadIdx.x == 0) losses[row] = static_cast<float>(log(stats.sum) + (stats.max - at_target));
  } else if (threadIdx.x == 0) {
    losses[row] = 0;
  }
  if (dlogits == nullptr) return;
  const float factor = static_cast<float>(grad_scale / stats.sum);
  // The target's own: 1 less, which cancels where it is predicted well.
  const float of_target = static_cast<float>(grad_scale * (exp(at_target - stats.max) / stats.sum - 1));
  for (int64_t i = threadIdx.x * kGroup; i < v; i += static_cast<int64_t>(kRowThreads) * kGroup) {
    const int count = static_cast<int>(v - i < kGroup ? v - i : kGroup);
    float x[kGroup] = {};
    if (target >= 0) {
      Load8(logits + begin + i, wide, count, x);
#pragma unroll
      for (int j = 0; j < kGroup; ++j) x[j] = i + j == target ? of_target : expf(x[j] - stats.max) * factor;
    }
    Store8(dlogits + begin + i, wide, count, x);
  }
}

}  // namespace

template <typename T>
void CrossEntropyRows(const Queue& queue, const T* logits, const int32_t* targets, float grad_scale,
                      float* losses, T* dlogits, int64_t rows, int64_t v) {
  Launch(queue, CrossEntropyKernel<T>, static_cast<unsigned>(rows), kRowThreads, 0, logits, targets,
         grad_scale, losses, dlogits, v, WideGroups(v, logits, dlogits));
}
template void CrossEntropyRows(const Queue&, const float*, const int32_t*, float, float*, float*, int64_t,
                               int64_t);
template void CrossEntropyRows(const Queue&, const Bf16*, const int32_t*, float, float*, Bf16*, int64_t,
                               int64_t);

}  // namespace cohort::runtime::COHORT_CUDA
