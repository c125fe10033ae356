#include "tools/cohort/bench/random_tokens.h"

#include <vector>

#include "absl/status/status.h"
#include "runtime/tensor.h"

namespace cohort::tools {

absl::StatusOr<parallel::Samples> RandomTokens::Training(int64_t step, int64_t begin, int64_t count) {
  const int64_t size = count * sequence_;
  std::vector<int32_t> tokens(size), targets(size), positions(size), offsets(count + 1);
  uint64_t state = static_cast<uint64_t>(step * 1000003 + begin) * 0x9e3779b97f4a7c15u + 1;
  for (int64_t i = 0; i < size; ++i) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    tokens[i] = static_cast<int32_t>((state >> 33) % static_cast<uint64_t>(vocabulary_));
    positions[i] = static_cast<int32_t>(i % sequence_);
    targets[i > 0 ? i - 1 : size - 1] = tokens[i];
  }
  for (int64_t s = 0; s <= count; ++s) offsets[s] = static_cast<int32_t>(s * sequence_);
  using runtime::Tensor;
  parallel::Samples samples;
  samples.tokens = {.tokens = Tensor::FromHost(device_, {size}, absl::Span<const int32_t>(tokens)),
                    .targets = Tensor::FromHost(device_, {size}, absl::Span<const int32_t>(targets)),
                    .positions = Tensor::FromHost(device_, {size}, absl::Span<const int32_t>(positions)),
                    .offsets = Tensor::FromHost(device_, {count + 1}, absl::Span<const int32_t>(offsets)),
                    .host_offsets = offsets};
  return samples;
}

absl::StatusOr<parallel::Samples> RandomTokens::HeldOut(int64_t, int64_t) {
  return absl::UnimplementedError("a benchmark holds nothing out");
}

}  // namespace cohort::tools
