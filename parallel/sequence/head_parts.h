// Which heads each of the ranks computes that exchange tokens for heads (Ulysses: Jacobs et al., 2023). Pure.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"

namespace cohort::parallel {

struct HeadPart {
  int64_t begin = 0, end = 0;  // query heads
  // The key/value heads they look at, in the part's own order: its query head i looks at kv[i / (heads() / kv.size())].
  std::vector<int64_t> kv;
  int64_t heads() const { return end - begin; }
};

// Query heads in `parts` equal runs. With at least as many key/value heads as parts each part gets its own share of
// them; with fewer, several parts get a copy of the same one, whose gradients are added up where it came from; where
// runs and groups do not fit, one for each query head. INVALID_ARGUMENT where parts do not divide the query heads.
absl::StatusOr<std::vector<HeadPart>> DivideHeads(int64_t heads, int64_t kv_heads, int parts);

}  // namespace cohort::parallel
