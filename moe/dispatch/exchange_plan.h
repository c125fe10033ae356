// Which rows go to which rank of an expert group, and where they lie when they have arrived. A pure function
// of counts.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace cohort::moe {

// One rank's view of one exchange of rows. This rank's rows lie sorted by (global) expert, which is also the
// order of the ranks that hold the experts, so they can be sent as they lie. Rows arrive by rank, each rank's
// sorted by expert; experts want them by expert, and within an expert by rank.
struct ExchangePlan {
  std::vector<int64_t> send_rows;     // [ranks]: to each rank
  std::vector<int64_t> receive_rows;  // [ranks]: from each rank
  std::vector<int32_t> offsets;  // [local experts + 1]: an expert's rows among those that arrived, by expert
  std::vector<int32_t>
      by_expert;  // [arrived]: by_expert[i] = the place, in order of arrival, of the i-th by expert
  std::vector<int32_t> by_rank;  // [arrived]: the inverse

  int64_t arrived() const { return static_cast<int64_t>(by_expert.size()); }
};

// send_offsets [experts + 1]: the rows of this rank that go to expert e are [send_offsets[e], send_offsets[e
// + 1]). receive_counts [ranks, local experts]: rows that each rank sends to each expert of this rank.
ExchangePlan MakeExchangePlan(absl::Span<const int32_t> send_offsets,
                              absl::Span<const int32_t> receive_counts, int ranks);

}  // namespace cohort::moe
