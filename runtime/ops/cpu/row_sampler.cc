#include "runtime/ops/cpu/row_sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "runtime/ops/cpu/policy.h"
#include "runtime/random/philox.h"

namespace cohort::runtime {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

}  // namespace

// The kept tokens are those up to and including (value, index) in the order of TokenBefore.
struct RowSampler::Cutoff {
  float value = -kInfinity;
  int32_t index = std::numeric_limits<int32_t>::max();
  bool Keeps(float x, int32_t i) const { return x > value || (x == value && i <= index); }
};

int32_t RowSampler::Sample(absl::Span<const float> x, const RowSampling& row) {
  int32_t best = 0;
  bool broken = false;
  for (size_t i = 0; i < x.size(); ++i) {
    broken |= !(x[i] < kInfinity);
    if (x[i] > x[best]) best = static_cast<int32_t>(i);
  }
  if (broken) return kBrokenLogits;
  if (x.empty() || x[best] == -kInfinity) return kNothingToDraw;
  if (row.temperature < kGreedyTemperature) return best;

  const float largest = x[best];
  const float inverse = 1.0f / row.temperature;
  weights_.resize(x.size());
  for (size_t i = 0; i < x.size(); ++i) weights_[i] = std::exp((x[i] - largest) * inverse);
  const Cutoff cutoff = FindCutoff(x, largest, row);
  double total = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    if (!cutoff.Keeps(x[i], static_cast<int32_t>(i))) weights_[i] = 0;
    total += weights_[i];
  }
  const auto bits = RandomBits(row.seed, RandomPurpose::kSampling, row.position, row.stream);
  double left = UniformDouble(bits[0], bits[1]) * total;
  int32_t last = best;  // rounding can leave something after the last weight
  for (size_t i = 0; i < x.size(); ++i) {
    if (weights_[i] == 0) continue;
    last = static_cast<int32_t>(i);
    left -= weights_[i];
    if (left < 0) break;
  }
  return last;
}

void RowSampler::FillBins(absl::Span<const float> x, float largest, float temperature) {
  bin_of_.resize(x.size());
  bin_count_.assign(cpu_policy::kSamplerBins, 0);
  bin_weight_.assign(cpu_policy::kSamplerBins, 0);
  const float scale = cpu_policy::kSamplerBinsPerNat / temperature;
  constexpr float kLastBin = cpu_policy::kSamplerBins - 1;
  for (size_t i = 0; i < x.size(); ++i) {
    // Falls with x and never the other way round, so that a bin's members come before those of the next.
    const int bin = static_cast<int>(std::min((largest - x[i]) * scale, kLastBin));
    bin_of_[i] = static_cast<uint16_t>(bin);
    ++bin_count_[bin];
    bin_weight_[bin] += weights_[i];
  }
}

const std::vector<int32_t>& RowSampler::SortedBin(absl::Span<const float> x, int bin) {
  members_.clear();
  for (size_t i = 0; i < x.size(); ++i) {
    if (bin_of_[i] == bin) members_.push_back(static_cast<int32_t>(i));
  }
  std::sort(members_.begin(), members_.end(), TokenBefore{x});
  return members_;
}

RowSampler::Cutoff RowSampler::FindCutoff(absl::Span<const float> x, float largest, const RowSampling& row) {
  Cutoff cutoff;
  const auto vocabulary = static_cast<int64_t>(x.size());
  const bool top_k = row.top_k > 0 && row.top_k < vocabulary, top_p = row.top_p < 1;
  double mass = 0;  // of what is kept so far
  if (top_k || top_p) {
    FillBins(x, largest, row.temperature);
    for (double weight : bin_weight_) mass += weight;
  }
  if (top_k) {
    int bin = 0;
    int64_t kept = 0;
    mass = 0;
    for (; kept + bin_count_[bin] < row.top_k; ++bin) {
      kept += bin_count_[bin];
      mass += bin_weight_[bin];
    }
    for (int32_t i : SortedBin(x, bin)) {
      mass += weights_[i];
      cutoff = {x[i], i};
      if (++kept == row.top_k) break;
    }
  }
  if (top_p) {
    const double wanted = mass * static_cast<double>(row.top_p);
    int bin = 0;
    double reached = 0;
    while (bin + 1 < cpu_policy::kSamplerBins && reached + bin_weight_[bin] < wanted)
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
  if (row.min_p > 0) {
    // In logits, as weights that have underflowed could not be told apart.
    const float least = largest + row.temperature * std::log(row.min_p);
    if (least > cutoff.value) cutoff = {least, std::numeric_limits<int32_t>::max()};
  }
  return cutoff;
}

}  // namespace cohort::runtime
