// The known name that somebody probably meant.
#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace cohort::runtime {

// Insertions, deletions, replacements and swaps of neighbours that make `a` out of `b` (optimal string
// alignment).
int EditDistance(absl::string_view a, absl::string_view b);

// The candidate nearest to `name`, the first of equals; empty where none is near enough to be a slip of the
// hand.
std::string NearestName(absl::string_view name, const std::vector<std::string>& candidates);

}  // namespace cohort::runtime
