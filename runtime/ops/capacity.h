// How many choices an expert takes from a sequence, and which: integers, so every device counts the same way.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace cohort::runtime {

// ceil(factor length top_k / experts). The tiny margin keeps products that are whole numbers, but for their
// rounding, from being rounded up.
inline int64_t ExpertCapacity(double factor, int64_t length, int64_t top_k, int64_t experts) {
  const double exact = factor * static_cast<double>(length * top_k) / static_cast<double>(experts);
  return static_cast<int64_t>(std::ceil(exact - 1e-9));
}

// One sequence of `length` tokens: kept[i] = indices[i], or -1 where its expert has no room left.
inline void DropSequenceOverCapacity(const int32_t* indices, int64_t length, int64_t top_k, int64_t experts,
                                     double factor, int32_t* kept) {
  const int64_t capacity = ExpertCapacity(factor, length, top_k, experts);
  std::vector<int64_t> taken(experts, 0);
  for (int64_t i = 0; i < length * top_k; ++i) {
    const int32_t e = indices[i];
    kept[i] = e >= 0 && taken[e]++ < capacity ? e : -1;
  }
}

}  // namespace cohort::runtime
