#include "runtime/config/nearest_name.h"

#include <algorithm>

#include "runtime/config/policy.h"

namespace cohort::runtime {

int EditDistance(absl::string_view a, absl::string_view b) {
  // rows[i % 3][j]: the distance of a's first i characters and b's first j.
  std::vector<int> rows[3];
  for (std::vector<int>& row : rows) row.resize(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) rows[0][j] = static_cast<int>(j);
  for (size_t i = 1; i <= a.size(); ++i) {
    std::vector<int>& row = rows[i % 3];
    const std::vector<int>& above = rows[(i + 2) % 3];
    row[0] = static_cast<int>(i);
    for (size_t j = 1; j <= b.size(); ++j) {
      row[j] = std::min({above[j] + 1, row[j - 1] + 1, above[j - 1] + (a[i - 1] != b[j - 1])});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        row[j] = std::min(row[j], rows[(i + 1) % 3][j - 2] + 1);
      }
    }
  }
  return rows[a.size() % 3][b.size()];
}

std::string NearestName(absl::string_view name, const std::vector<std::string>& candidates) {
  std::string best;
  int best_distance = std::max(config_policy::kNearestDistance,
                               static_cast<int>(name.size()) / config_policy::kNearestDistancePerLength) +
                      1;
  for (const std::string& candidate : candidates) {
    const int distance = EditDistance(name, candidate);
    // As many changes as letters is no slip of the hand.
    if (distance < best_distance && distance < static_cast<int>(std::min(name.size(), candidate.size()))) {
      best = candidate;
      best_distance = distance;
    }
  }
  return best;
}

}  // namespace cohort::runtime
