// The next token of one row of logits: a pure function.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "runtime/ops/cpu/row_sampler.h"
#include "serving/generation.h"

namespace cohort::serving {

// What the draw depends on beside the logits.
struct SampleInput {
  const SamplingParams* params = nullptr;
  absl::Span<const int32_t> prompt;  // both read only where params->penalizes()
  absl::Span<const int32_t> output;
  absl::Span<const int32_t> banned;  // never drawn now (min_tokens)
  uint64_t position = 0;             // tokens of this output drawn before
  uint64_t completion = 0;           // index among the request's n
};

// `drawn`, or INTERNAL for what SampleTokens gives where there is no token.
absl::StatusOr<int32_t> TokenOrError(int32_t drawn);

// What SampleTokens needs to know of a request.
runtime::RowSampling RowOf(const SamplingParams& params, uint64_t position, uint64_t completion);

// Keeps its workspace between calls; not thread-safe, one a thread. Results depend on the arguments alone.
class Sampler {
 public:
  // Penalties and logit_bias, in this order, then SampleTokens of runtime/ops/ops.h with (seed, position,
  // completion). INTERNAL where the logits hold a NaN or +inf, or nothing finite is left to draw from.
  absl::StatusOr<int32_t> Sample(absl::Span<const float> logits, const SampleInput& input);

 private:
  void Adjust(absl::Span<const float> logits, const SampleInput& input);

  runtime::RowSampler rows_;
  std::vector<float> adjusted_;  // [V], where anything changes the logits
  std::vector<int32_t> counts_;  // [V], zero between calls
};

// Log-probabilities under softmax(logits) of `chosen` and of the `top` likeliest (the lower index first among
// equals). The rank of a token is 1 + how many come before it in that order.
TokenScores ScoreToken(absl::Span<const float> logits, int32_t chosen, int top);

}  // namespace cohort::serving
