// The kernels of cross_entropy.cu and vocabulary_loss.cu. T float or Bf16; logits [rows, v].
#pragma once

#include "runtime/ops/cuda/element.h"
#include "runtime/ops/cuda/launch.h"

namespace cohort::runtime::COHORT_CUDA {

// dlogits may be null or logits.
template <typename T>
void CrossEntropyRows(const Queue& queue, const T* logits, const int32_t* targets, float grad_scale,
                      float* losses, T* dlogits, int64_t rows, int64_t v);

// The steps of a split vocabulary, as ops.h has them.
template <typename T>
void VocabularyStatsRows(const Queue& queue, const T* logits, const int32_t* targets, int64_t first,
                         float* max, float* sum, float* target_logit, int64_t rows, int64_t v);
void VocabularyRescaleRows(const Queue& queue, const float* max, const float* global_max, float* sum,
                           int64_t rows);
void VocabularyLossRows(const Queue& queue, const int32_t* targets, const float* max, const float* sum,
                        const float* target_logit, float* lse, float* losses, int64_t rows);
template <typename T>
void VocabularyGradRows(const Queue& queue, const T* logits, const int32_t* targets, int64_t first,
                        const float* lse, float grad_scale, T* dlogits, int64_t rows, int64_t v);

}  // namespace cohort::runtime::COHORT_CUDA
