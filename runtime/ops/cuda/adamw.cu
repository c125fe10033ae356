// AdamW: one pass over the four tensors of a parameter and its rounded value.
#include "runtime/ops/cuda/elementwise.h"
#include "runtime/ops/cuda/for_groups.h"

namespace cohort::runtime::COHORT_CUDA {
namespace {

// One pass over all tensors of a parameter: 28 bytes an element in f32, 2 more for the value in bf16. Products and sums
// are written as fused ones, so that an element does not depend on which loop took it.
template <typename T>
struct AdamWGroups {
  float* master;
  const float* grad;
  float *m, *v;
  T* value;
  AdamWStep step;
  __device__ void operator()(int64_t i, bool wide, int count) const {
    float w[kGroup], g[kGroup], first[kGroup], second[kGroup];
    Load8(master + i, wide, count, w);
    Load8(grad + i, wide, count, g);
    Load8(m + i, wide, count, first);
    Load8(v + i, wide, count, second);
#pragma unroll
    for (int j = 0; j < kGroup; ++j) {
      const float scaled = g[j] * step.grad_scale;
      first[j] = __fmaf_rn(step.beta1, first[j], step.complement1 * scaled);
      second[j] = __fmaf_rn(step.beta2, second[j], step.complement2 * scaled * scaled);
      const float root = __fmaf_rn(sqrtf(second[j]), step.inverse_root2, step.eps);
      w[j] = __fmaf_rn(-step.decay, w[j], w[j]) - step.step_size * first[j] / root;
    }
    Store8(master + i, wide, count, w);
    Store8(m + i, wide, count, first);
    Store8(v + i, wide, count, second);
    if (value != nullptr) Store8(value + i, wide, count, w);
  }
};

}  // namespace

template <typename T>
void AdamWElements(const Queue& queue, float* master, const float* grad, float* m, float* v, T* value,
                   const AdamWStep& step, int64_t n) {
  LaunchGroups(queue, AdamWGroups<T>{master, grad, m, v, value, step}, n, master, grad, m, v, value);
}
template void AdamWElements(const Queue&, float*, const float*, float*, float*, float*, const AdamWStep&,
                            int64_t);
template void AdamWElements(const Queue&, float*, const float*, float*, float*, Bf16*, const AdamWStep&,
                            int64_t);

}  // namespace cohort::runtime::COHORT_CUDA
