// The arguments of SampleTokens, checked, and a row of them where the host may read them.
#pragma once

#include "runtime/ops/check_shapes.h"
#include "runtime/ops/ops.h"
#include "runtime/ops/sampling.h"

namespace cohort::runtime {

inline void CheckSampling(const Tensor& logits, const SamplingRows& rows, const Tensor& tokens,
                          const Tensor& logprobs, const Tensor& ranks) {
  COHORT_CHECK(logits.rank() == 2, "SampleTokens of %s", logits.DebugString().c_str());
  const int64_t count = logits.dim(0);
  const DataType state = logits.device().state_dtype();
  for (const Tensor* x : {&rows.temperatures, &rows.top_p, &rows.min_p}) {
    CheckShape("SampleTokens", *x, {count});
    CheckType("SampleTokens", *x, state);
  }
  CheckShape("SampleTokens", rows.draws, {count, kDrawWords});
  CheckShape("SampleTokens", rows.top_k, {count});
  CheckShape("SampleTokens", tokens, {count});
  for (const Tensor* x : {&rows.draws, &rows.top_k, &tokens}) CheckType("SampleTokens", *x, DataType::kI32);
  COHORT_CHECK(logprobs.defined() == ranks.defined(), "SampleTokens with one of logprobs and ranks");
  if (!logprobs.defined()) return;
  CheckShape("SampleTokens", logprobs, {count});
  CheckType("SampleTokens", logprobs, state);
  CheckShape("SampleTokens", ranks, {count});
  CheckType("SampleTokens", ranks, DataType::kI32);
}

// State: the device's state type.
template <typename State>
RowSampling RowOf(const SamplingRows& rows, int64_t r) {
  const int32_t* const words = rows.draws.data<int32_t>() + r * kDrawWords;
  return {.temperature = static_cast<float>(rows.temperatures.data<State>()[r]),
          .top_k = rows.top_k.data<int32_t>()[r],
          .top_p = static_cast<float>(rows.top_p.data<State>()[r]),
          .min_p = static_cast<float>(rows.min_p.data<State>()[r]),
          .seed = WideWord(words),
          .position = WideWord(words + 2),
          .stream = WideWord(words + 4)};
}

}  // namespace cohort::runtime
