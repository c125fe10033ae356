#include "runtime/ops/cuda/sampling.h"

#include "runtime/ops/check_sampling.h"
#include "runtime/ops/cuda/compute_type.h"
#include "runtime/ops/cuda/cuda_ops.h"

namespace cohort::runtime::COHORT_CUDA {

void CudaOps::SampleTokens(const Tensor& logits, const SamplingRows& rows, const Tensor& tokens,
                           const Tensor& logprobs, const Tensor& ranks) {
  CheckSampling(logits, rows, tokens, logprobs, ranks);
  const Queue& queue = Enter();
  const Tensor weights = Scratch(logits.shape(), DataType::kF32);
  const SamplingCall call = {.temperatures = Floats(rows.temperatures),
                             .top_p = Floats(rows.top_p),
                             .min_p = Floats(rows.min_p),
                             .top_k = Indices(rows.top_k),
                             .draws = Indices(rows.draws),
                             .tokens = Indices(tokens),
                             .logprobs = Floats(logprobs),
                             .ranks = logprobs.defined() ? Indices(ranks) : nullptr,
                             .weights = Floats(weights),
                             .rows = logits.dim(0),
                             .v = logits.dim(1)};
  WithComputeType("SampleTokens", logits,
                  [&]<typename T>(T) { SampleRows<T>(queue, Data<T>(logits), call); });
}

}  // namespace cohort::runtime::COHORT_CUDA
