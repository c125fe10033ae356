// The sum of squares, in double precision and in an order that only the number of elements decides: kSumBlocks blocks
// take equal runs of groups, then one block adds up their sums.
#include "runtime/ops/cuda/elementwise.h"
#include "runtime/ops/cuda/reduce.h"

namespace cohort::runtime::COHORT_CUDA {
namespace {

constexpr int kThreads = 256;

template <typename T>
__global__ void __launch_bounds__(kThreads)
    SumSquaresPartial(const T* x, int64_t n, bool wide, double* partial) {
  __shared__ double room[kWarp];
  const int64_t groups = CeilDiv(n, kGroup), share = CeilDiv(groups, kSumBlocks);
  const int64_t begin = blockIdx.x * share, end = Least(groups, begin + share);
  double sum = 0;
  for (int64_t group = begin + threadIdx.x; group < end; group += kThreads) {
    const int64_t i = group * kGroup, left = n - i;
    float a[kGroup];
    Load8(x + i, wide && left >= kGroup, static_cast<int>(left < kGroup ? left : kGroup), a);
#pragma unroll
    for (int j = 0; j < kGroup; ++j) sum += static_cast<double>(a[j]) * static_cast<double>(a[j]);
  }
  sum = BlockSum(sum, room);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(kThreads) SumPartials(const double* partial, double* out) {
  __shared__ double room[kWarp];
  double sum = 0;
  for (int i = threadIdx.x; i < kSumBlocks; i += kThreads) sum += partial[i];
  sum = BlockSum(sum, room);
  if (threadIdx.x == 0) *out += sum;
}

}  // namespace

template <typename T>
void SumSquaresElements(const Queue& queue, const T* x, int64_t n, double* partial, double* out) {
  Launch(queue, SumSquaresPartial<T>, kSumBlocks, kThreads, 0, x, n, Aligned16(x), partial);
  Launch(queue, SumPartials, 1, kThreads, 0, partial, out);
}
template void SumSquaresElements(const Queue&, const float*, int64_t, double*, double*);
template void SumSquaresElements(const Queue&, const Bf16*, int64_t, double*, double*);

}  // namespace cohort::runtime::COHORT_CUDA
