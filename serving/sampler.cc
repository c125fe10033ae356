#include "serving/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace cohort::serving {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

}  // namespace

absl::StatusOr<int32_t> TokenOrError(int32_t drawn) {
  if (drawn == runtime::kBrokenLogits) {
    return absl::InternalError("the model gave a logit that is NaN or infinite");
  }
  if (drawn == runtime::kNothingToDraw) return absl::InternalError("no token is left to draw from");
  return drawn;
}

runtime::RowSampling RowOf(const SamplingParams& params, uint64_t position, uint64_t completion) {
  return {.temperature = params.temperature,
          .top_k = params.top_k,
          .top_p = params.top_p,
          .min_p = params.min_p,
          .seed = params.seed,
          .position = position,
          .stream = completion};
}

absl::StatusOr<int32_t> Sampler::Sample(absl::Span<const float> logits, const SampleInput& input) {
  const SamplingParams& params = *input.params;
  absl::Span<const float> x = logits;
  if (params.penalizes() || !params.logit_bias.empty() || !input.banned.empty()) {
    Adjust(logits, input);
    x = adjusted_;
  }
  return TokenOrError(rows_.Sample(x, RowOf(params, input.position, input.completion)));
}

void Sampler::Adjust(absl::Span<const float> logits, const SampleInput& input) {
  adjusted_.assign(logits.begin(), logits.end());
  const SamplingParams& params = *input.params;
  const auto vocabulary = static_cast<int32_t>(logits.size());
  if (params.penalizes()) {
    // counts_: output occurrences; -1 marks a token of the prompt alone that has had its penalty.
    counts_.resize(logits.size(), 0);
    const auto repeat = [&](int32_t token) {
      float& x = adjusted_[token];
      x = x > 0 ? x / params.repetition_penalty : x * params.repetition_penalty;
    };
    for (int32_t token : input.output) {
      if (counts_[token]++ == 0) repeat(token);
    }
    for (int32_t token : input.prompt) {
      if (counts_[token] != 0) continue;
      repeat(token);
      counts_[token] = -1;
    }
    for (int32_t token : input.output) {
      if (counts_[token] == 0) continue;
      adjusted_[token] -=
          params.presence_penalty + params.frequency_penalty * static_cast<float>(counts_[token]);
      counts_[token] = 0;
    }
    for (int32_t token : input.prompt) counts_[token] = 0;
  }
  for (const auto& [token, bias] : params.logit_bias) adjusted_[token] += bias;
  for (int32_t token : input.banned) {
    if (token >= 0 && token < vocabulary) adjusted_[token] = -kInfinity;
  }
}

TokenScores ScoreToken(absl::Span<const float> logits, int32_t chosen, int top) {
  const float largest = *std::max_element(logits.begin(), logits.end());
  double total = 0;
  TokenScores scores;
  int32_t rank = 1;
  const runtime::TokenBefore before{logits};
  std::vector<int32_t> best;  // in order, at most `top`
  for (size_t i = 0; i < logits.size(); ++i) {
    const auto token = static_cast<int32_t>(i);
    total += std::exp(logits[i] - largest);
    rank += before(token, chosen);
    if (top == 0) continue;
    if (static_cast<int>(best.size()) == top) {
      if (!before(token, best.back())) continue;
      best.pop_back();
    }
    best.insert(std::upper_bound(best.begin(), best.end(), token, before), token);
  }
  const double log_total = std::log(total);
  const auto logprob = [&](int32_t token) {
    return static_cast<float>(static_cast<double>(logits[token]) - largest - log_total);
  };
  scores.chosen = {chosen, logprob(chosen), rank};
  for (size_t i = 0; i < best.size(); ++i) {
    scores.top.push_back({best[i], logprob(best[i]), static_cast<int32_t>(i) + 1});
  }
  return scores;
}

}  // namespace cohort::serving
