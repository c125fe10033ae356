// Sampling on the CPU: a row a thread.
#include <algorithm>
#include <cmath>
#include <vector>

#include "runtime/ops/check_sampling.h"
#include "runtime/ops/cpu/compute_type.h"
#include "runtime/ops/cpu/cpu_ops.h"
#include "runtime/ops/cpu/parallel.h"
#include "runtime/ops/cpu/row_sampler.h"

namespace cohort::runtime {
namespace {

struct Score {
  float logprob = 0;
  int32_t rank = 0;
};

Score ScoreOf(absl::Span<const float> x, int32_t chosen) {
  const float largest = *std::max_element(x.begin(), x.end());
  const TokenBefore before{x};
  double total = 0;
  Score score = {0, 1};
  for (size_t i = 0; i < x.size(); ++i) {
    total += std::exp(x[i] - largest);
    score.rank += before(static_cast<int32_t>(i), chosen);
  }
  score.logprob = static_cast<float>(static_cast<double>(x[chosen]) - largest - std::log(total));
  return score;
}

}  // namespace

void CpuOps::SampleTokens(const Tensor& logits, const SamplingRows& rows, const Tensor& tokens,
                          const Tensor& logprobs, const Tensor& ranks) {
  CheckSampling(logits, rows, tokens, logprobs, ranks);
  const int64_t v = logits.dim(1);
  WithComputeType("SampleTokens", logits, [&]<typename T>(T) {
    ParallelFor(logits.dim(0), 1, 1, [&](int64_t begin, int64_t end) {
      RowSampler sampler;
      std::vector<float> x(v);
      for (int64_t r = begin; r < end; ++r) {
        const T* const row = logits.data<T>() + r * v;
        std::transform(row, row + v, x.begin(), [](T value) { return static_cast<float>(value); });
        const int32_t token = sampler.Sample(x, RowOf<float>(rows, r));
        tokens.data<int32_t>()[r] = token;
        if (!logprobs.defined()) continue;
        const Score score = token < 0 ? Score() : ScoreOf(x, token);
        logprobs.data<float>()[r] = score.logprob;
        ranks.data<int32_t>()[r] = score.rank;
      }
    });
  });
}

}  // namespace cohort::runtime
