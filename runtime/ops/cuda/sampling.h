// The kernel of sample_tokens.cu: SampleTokens of ops.h.
#pragma once

#include "runtime/ops/cuda/element.h"
#include "runtime/ops/cuda/launch.h"

namespace cohort::runtime::COHORT_CUDA {

// SamplingRows and what comes of them; rows [rows, v]. logprobs and ranks may be null.
struct SamplingCall {
  const float *temperatures, *top_p, *min_p;
  const int32_t *top_k, *draws;
  int32_t* tokens;
  float* logprobs;
  int32_t* ranks;
  float* weights;  // scratch [rows, v]
  int64_t rows, v;
};

template <typename T>
void SampleRows(const Queue& queue, const T* logits, const SamplingCall& call);

}  // namespace cohort::runtime::COHORT_CUDA
