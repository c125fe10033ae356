// The maximum and the sum of exponentials of a row of logits in one pass, by a block.
#pragma once

#include "runtime/ops/cuda/element.h"
#include "runtime/ops/cuda/reduce.h"

namespace cohort::runtime::COHORT_CUDA {

inline constexpr int kRowThreads = 512;
// What a maximum begins with: exp(x - kLowest) is 0 for x = -inf, which a maximum of -inf would make NaN of.
inline constexpr float kLowest = -3.0e38f;

struct RowStats {
  float max;
  double sum;  // sum_i exp(x_i - max), 0 where nothing is above -inf
};

// Each thread has a maximum of its own that rarely grows (Milakov & Gimelshein, 2018). What its sum loses
// by rounding is added up too (TwoSum: Knuth, The Art of Computer Programming, 4.2.2, theorem B): beside the largest
// term, which is 1, small ones make the whole loss of a row that is predicted well. All threads get the result. `room`: 32 elements of shared memory.
template <typename T>
__device__ __forceinline__ RowStats SoftmaxStats(const T* row, int64_t v, bool wide, double* room) {
  float top = kLowest, sum = 0, lost = 0;  // the sum so far is sum + lost
  for (int64_t i = threadIdx.x * kGroup; i < v; i += static_cast<int64_t>(kRowThreads) * kGroup) {
    const int count = static_cast<int>(v - i < kGroup ? v - i : kGroup);
    float x[kGroup];
    Load8(row + i, wide, count, x);
    float here = kLowest;
#pragma unroll
    for (int j = 0; j < kGroup; ++j) here = j < count ? fmaxf(here, x[j]) : here;
    if (here > top) {
      const float shrink = expf(top - here);
      sum *= shrink;
      lost *= shrink;
      top = here;
    }
#pragma unroll
    for (int j = 0; j < kGroup; ++j) {
      const float term = j < count ? expf(x[j] - top) : 0.0f;
      const float next = sum + term, added = next - sum;
      lost += (sum - (next - added)) + (term - added);
      sum = next;
    }
  }
  const float max = BlockMax(top, reinterpret_cast<float*>(room));
  const double mine =
      (static_cast<double>(sum) + static_cast<double>(lost)) * static_cast<double>(expf(top - max));
  return {max, BlockSum(mine, room)};
}

}  // namespace cohort::runtime::COHORT_CUDA
