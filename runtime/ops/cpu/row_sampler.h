// The next token of one row of logits on the CPU: SampleTokens of ops.h for a row that lies on the host.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "runtime/ops/sampling.h"

namespace cohort::runtime {

// The order of tokens: the likelier first, the lower index among equals.
struct TokenBefore {
  absl::Span<const float> x;
  bool operator()(int32_t a, int32_t b) const { return x[a] != x[b] ? x[a] > x[b] : a < b; }
};

// Keeps its workspace between calls; not thread-safe, one a thread. Results depend on the arguments alone.
class RowSampler {
 public:
  // A token, kBrokenLogits or kNothingToDraw.
  int32_t Sample(absl::Span<const float> x, const RowSampling& row);

 private:
  struct Cutoff;

  // The last candidate that top_k, top_p and min_p keep.
  Cutoff FindCutoff(absl::Span<const float> x, float largest, const RowSampling& row);
  void FillBins(absl::Span<const float> x, float largest, float temperature);
  // Members of one bin in order.
  const std::vector<int32_t>& SortedBin(absl::Span<const float> x, int bin);

  std::vector<float> weights_;    // [V]: exp((x - largest) / temperature)
  std::vector<uint16_t> bin_of_;  // [V]
  std::vector<int64_t> bin_count_;
  std::vector<double> bin_weight_;
  std::vector<int32_t> members_;
};

}  // namespace cohort::runtime
