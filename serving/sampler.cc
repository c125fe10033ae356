#include "serving/sampler.h"

#include <algorithm>
#include <cmath>

#include "runtime/random/philox.h"
#include "serving/policy.h"

namespace cohort::serving {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Whether token a comes before token b: the likelier first, the lower index among equals.
struct Before {
  absl::Span<const float> x;
  bool operator()(int32_t a, int32_t b) const { return x[a] != x[b] ? x[a] > x[b] : a < b; }
};

}  // namespace

// The kept tokens are those up to and including (value, index) in the order of Before.
struct Sampler::Cutoff {
  float value = -kInfinity;
  int32_t index = std::numeric_limits<int32_t>::max();
  bool Keeps(float x, int32_t i) const { return x > value || (x == value && i <= index); }
};

absl::StatusOr<int32_t> Sampler::Sample(absl::Span<const float> logits, const SampleInput& input) {
  const SamplingParams& params = *input.params;
  absl::Span<const float> x = logits;
  if (params.penalizes() || !params.logit_bias.empty() || !input.banned.empty()) {
    Adjust(logits, input);
    x = adjusted_;
  }
  int32_t best = 0;
  bool broken = false;
  for (size_t i = 0; i < x.size(); ++i) {
    broken |= !(x[i] < kInfinity);
    if (x[i] > x[best]) best = static_cast<int32_t>(i);
  }
  if (broken) return absl::InternalError("the model gave a logit that is NaN or infinite");
  if (x.empty() || x[best] == -kInfinity) return absl::InternalError("no token is left to draw from");
  if (params.temperature < policy::kGreedyTemperature) return best;

  const float largest = x[best];
  const float inverse = 1.0f / params.temperature;
  weights_.resize(x.size());
  for (size_t i = 0; i < x.size(); ++i) weights_[i] = std::exp((x[i] - largest) * inverse);
  const Cutoff cutoff = FindCutoff(x, largest, params);
  double total = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    if (!cutoff.Keeps(x[i], static_cast<int32_t>(i))) weights_[i] = 0;
    total += weights_[i];
  }
  const auto bits =
      runtime::RandomBits(params.seed, runtime::RandomPurpose::kSampling, input.position, input.completion);
  double left = runtime::UniformDouble(bits[0], bits[1]) * total;
  int32_t last = best;  // rounding can leave something after the last weight
  for (size_t i = 0; i < x.size(); ++i) {
    if (weights_[i] == 0) continue;
    last = static_cast<int32_t>(i);
    left -= weights_[i];
    if (left < 0) break;
  }
  return last;
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

void Sampler::FillBins(absl::Span<const float> x, float largest, float temperature) {
  bin_of_.resize(x.size());
  bin_count_.assign(policy::kSamplerBins, 0);
  bin_weight_.assign(policy::kSamplerBins, 0);
  const float scale = policy::kSamplerBinsPerNat / temperature;
  constexpr float kLastBin = policy::kSamplerBins - 1;
  for (size_t i = 0; i < x.size(); ++i) {
    // Falls with x and never the other way round, so that a bin's members come before those of the next.
    const int bin = static_cast<int>(std::min((largest - x[i]) * scale, kLastBin));
    bin_of_[i] = static_cast<uint16_t>(bin);
    ++bin_count_[bin];
    bin_weight_[bin] += weights_[i];
  }
}

const std::vector<int32_t>& Sampler::SortedBin(absl::Span<const float> x, int bin) {
  members_.clear();
  for (size_t i = 0; i < x.size(); ++i) {
    if (bin_of_[i] == bin) members_.push_back(static_cast<int32_t>(i));
  }
  std::sort(members_.begin(), members_.end(), Before{x});
  return members_;
}

Sampler::Cutoff Sampler::FindCutoff(absl::Span<const float> x, float largest, const SamplingParams& params) {
  Cutoff cutoff;
  const auto vocabulary = static_cast<int64_t>(x.size());
  const bool top_k = params.top_k > 0 && params.top_k < vocabulary, top_p = params.top_p < 1;
  double mass = 0;  // of what is kept so far
  if (top_k || top_p) {
    FillBins(x, largest, params.temperature);
    for (double weight : bin_weight_) mass += weight;
  }
  if (top_k) {
    int bin = 0;
    int64_t kept = 0;
    mass = 0;
    for (; kept + bin_count_[bin] < params.top_k; ++bin) {
      kept += bin_count_[bin];
      mass += bin_weight_[bin];
    }
    for (int32_t i : SortedBin(x, bin)) {
      mass += weights_[i];
      cutoff = {x[i], i};
      if (++kept == params.top_k) break;
    }
  }
  if (top_p) {
    const double wanted = mass * static_cast<double>(params.top_p);
    int bin = 0;
    double reached = 0;
    while (bin + 1 < policy::kSamplerBins && reached + bin_weight_[bin] < wanted)
      reached += bin_weight_[bin++];
    for (int32_t i : SortedBin(x, bin)) {
      if (!cutoff.Keeps(x[i], i)) break;  // top_k ends first
      reached += weights_[i];
      if (reached >= wanted) {
        cutoff = {x[i], i};
        break;
      }
    }
  }
  if (params.min_p > 0) {
    // In logits, as weights that have underflowed could not be told apart.
    const float least = largest + params.temperature * std::log(params.min_p);
    if (least > cutoff.value) cutoff = {least, std::numeric_limits<int32_t>::max()};
  }
  return cutoff;
}

TokenScores ScoreToken(absl::Span<const float> logits, int32_t chosen, int top) {
  const float largest = *std::max_element(logits.begin(), logits.end());
  double total = 0;
  TokenScores scores;
  int32_t rank = 1;
  const Before before{logits};
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
