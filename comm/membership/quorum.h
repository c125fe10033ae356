// Whether those who answer are enough of a group's members: a pure function.
#pragma once

#include <cstdint>
#include <set>
#include <vector>

#include "absl/types/span.h"

namespace cohort::comm {

enum class Share : uint8_t { kLess, kHalf, kMore };

// How much of `members` the voters are: less than half, exactly half, or more. With bounds (EditOptions::counted_below) only
// the members of lower numbers count, for each bound by itself, and the least of the shares is what they have; a bound
// below which nobody is gives kLess.
Share ShareOf(const std::set<int>& voters, absl::Span<const int> members,
              absl::Span<const int> counted_below);

// The bounds when members from number `first` on have come who do not count yet.
std::vector<int> BoundsWithout(std::vector<int> counted_below, int first);

}  // namespace cohort::comm
