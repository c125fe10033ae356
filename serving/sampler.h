// The next token of one row of logits: a pure function.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
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

// Keeps its workspace between calls; not thread-safe, one a thread. Results depend on the arguments alone.
class Sampler {
 public:
  // Penalties, logit_bias, temperature, top_k, top_p, min_p, in this order, then one draw with Philox(seed,
  // position, completion). Temperature 0 (or below policy::kGreedyTemperature): the largest logit, the lowest
  // index among equals. Each filter keeps a beginning of the order by (logit falling, index rising): top_k
  // its first k; top_p the fewest that reach top_p of what top_k kept; min_p those at least min_p times as
  // likely as the first. INTERNAL where the logits hold a NaN or +inf, or nothing finite is left to draw
  // from.
  absl::StatusOr<int32_t> Sample(absl::Span<const float> logits, const SampleInput& input);

 private:
  struct Cutoff;

  void Adjust(absl::Span<const float> logits, const SampleInput& input);
  // The last candidate that top_k, top_p and min_p keep.
  Cutoff FindCutoff(absl::Span<const float> x, float largest, const SamplingParams& params);
  void FillBins(absl::Span<const float> x, float largest, float temperature);
  // Members of one bin in order.
  const std::vector<int32_t>& SortedBin(absl::Span<const float> x, int bin);

  std::vector<float> adjusted_;   // [V], where anything changes the logits
  std::vector<float> weights_;    // [V]: exp((x - largest) / temperature)
  std::vector<uint16_t> bin_of_;  // [V]
  std::vector<int64_t> bin_count_;
  std::vector<double> bin_weight_;
  std::vector<int32_t> members_;
  std::vector<int32_t> counts_;  // [V], zero between calls
};

// Log-probabilities under softmax(logits) of `chosen` and of the `top` likeliest (the lower index first among
// equals). The rank of a token is 1 + how many come before it in that order.
TokenScores ScoreToken(absl::Span<const float> logits, int32_t chosen, int top);

}  // namespace cohort::serving
