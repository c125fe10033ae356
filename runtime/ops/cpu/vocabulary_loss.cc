// The loss over a split vocabulary on the CPU (Megatron's vocabulary-parallel cross entropy: Shoeybi et al.,
// 2019, section 3), in the steps between which ranks talk.
#include <algorithm>
#include <cmath>
#include <limits>

#include "runtime/ops/check_shapes.h"
#include "runtime/ops/cpu/compute_type.h"
#include "runtime/ops/cpu/cpu_ops.h"
#include "runtime/ops/cpu/kernels.h"
#include "runtime/ops/cpu/parallel.h"
#include "runtime/ops/cpu/policy.h"

namespace cohort::runtime {

void CpuOps::VocabularyStats(const Tensor& logits, const Tensor& targets, int64_t first, const Tensor& max,
                             const Tensor& sum, const Tensor& target_logit) {
  const int64_t rows = logits.dim(0), v = logits.dim(1);
  for (const Tensor* other : {&targets, &max, &sum, &target_logit})
    CheckShape("VocabularyStats", *other, {rows});
  const int32_t* target = targets.data<int32_t>();
  float *tops = max.data<float>(), *sums = sum.data<float>(), *at_target = target_logit.data<float>();
  WithComputeType("VocabularyStats", logits, [&]<typename T>(T) {
    const T* in = logits.data<T>();
    ParallelFor(rows, 1 + cpu_policy::kElementGrain / (v + 1), 1, [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) {
        tops[t] = sums[t] = at_target[t] = 0;
        if (target[t] < 0) continue;
        double total = 0;
        KernelsOf<T>().softmax_stats(in + t * v, v, &tops[t], &total);
        sums[t] = static_cast<float>(total);
        if (total == 0) tops[t] = -std::numeric_limits<float>::infinity();
        if (target[t] >= first && target[t] < first + v) {
          at_target[t] = static_cast<float>(in[t * v + target[t] - first]);
        }
      }
    });
  });
}

void CpuOps::VocabularyRescale(const Tensor& max, const Tensor& global_max, const Tensor& sum) {
  CheckSameShape("VocabularyRescale", max, global_max);
  CheckSameShape("VocabularyRescale", max, sum);
  for (int64_t t = 0; t < max.size(); ++t) {
    float& value = sum.data<float>()[t];
    if (value != 0) value *= std::exp(max.data<float>()[t] - global_max.data<float>()[t]);
  }
}

void CpuOps::VocabularyLoss(const Tensor& targets, const Tensor& max, const Tensor& sum,
                            const Tensor& target_logit, const Tensor& lse, const Tensor& losses) {
  for (const Tensor* other : {&max, &sum, &target_logit, &lse, &losses})
    CheckSameShape("VocabularyLoss", targets, *other);
  for (int64_t t = 0; t < targets.size(); ++t) {
    float value = 0, loss = 0;
    if (targets.data<int32_t>()[t] >= 0) {
      const float top = max.data<float>()[t];
      const double log_sum = std::log(static_cast<double>(sum.data<float>()[t]));
      value = static_cast<float>(top + log_sum);
      loss = static_cast<float>(log_sum + (top - target_logit.data<float>()[t]));
    }
    lse.data<float>()[t] = value;
    losses.data<float>()[t] = loss;
  }
}

void CpuOps::VocabularyGrad(const Tensor& logits, const Tensor& targets, int64_t first, const Tensor& lse,
                            double grad_scale, const Tensor& dlogits) {
  const int64_t rows = logits.dim(0), v = logits.dim(1);
  for (const Tensor* other : {&targets, &lse}) CheckShape("VocabularyGrad", *other, {rows});
  CheckSameShape("VocabularyGrad", logits, dlogits);
  CheckSameType("VocabularyGrad", logits, dlogits);
  const int32_t* target = targets.data<int32_t>();
  const float* lses = lse.data<float>();
  WithComputeType("VocabularyGrad", logits, [&]<typename T>(T) {
    ParallelFor(rows, 1 + cpu_policy::kElementGrain / (v + 1), 1, [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) {
        const T* in = logits.data<T>() + t * v;
        T* out = dlogits.data<T>() + t * v;
        if (target[t] < 0) {
          std::fill(out, out + v, T{});
          continue;
        }
        const int64_t here = target[t] - first;
        const bool mine = here >= 0 && here < v;
        const double at_target = mine ? static_cast<float>(in[here]) : 0;
        KernelsOf<T>().scaled_exp(in, lses[t], static_cast<float>(grad_scale), out, v);
        if (mine) {
          out[here] = static_cast<T>(static_cast<float>(grad_scale * (std::exp(at_target - lses[t]) - 1)));
        }
      }
    });
  });
}

}  // namespace cohort::runtime
