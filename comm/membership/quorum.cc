#include "comm/membership/quorum.h"

#include <algorithm>
#include <cstddef>
#include <limits>

namespace cohort::comm {

Share ShareOf(const std::set<int>& voters, absl::Span<const int> members,
              absl::Span<const int> counted_below) {
  const auto below = [&](int bound) {
    size_t all = 0, voting = 0;
    for (const int member : members) {
      if (member >= bound) continue;
      ++all;
      voting += voters.contains(member);
    }
    if (2 * voting == all && all > 0) return Share::kHalf;
    return 2 * voting > all ? Share::kMore : Share::kLess;
  };
  if (counted_below.empty()) return below(std::numeric_limits<int>::max());
  Share least = Share::kMore;
  for (const int bound : counted_below) least = std::min(least, below(bound));
  return least;
}

std::vector<int> BoundsWithout(std::vector<int> counted_below, int first) {
  if (counted_below.empty()) return {first};
  for (int& bound : counted_below) bound = std::min(bound, first);
  return counted_below;
}

}  // namespace cohort::comm
