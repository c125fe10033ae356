#include "comm/late_ranks.h"

#include <set>

namespace cohort::comm {

std::vector<int> FollowWaits(const std::vector<int>& suspects, int self, const AwaitedBy& awaited_by) {
  std::set<int> seen = {self};
  std::set<int> late;
  std::vector<int> open = suspects;
  while (!open.empty()) {
    const int rank = open.back();
    open.pop_back();
    if (!seen.insert(rank).second) continue;
    if (const auto awaited = awaited_by(rank); awaited.has_value()) {
      open.insert(open.end(), awaited->begin(), awaited->end());
    } else {
      late.insert(rank);
    }
  }
  return {late.begin(), late.end()};
}

}  // namespace cohort::comm
