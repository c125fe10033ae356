#include "parallel/elastic/counted_members.h"

#include <algorithm>
#include <limits>

namespace cohort::parallel {

const int CountedMembers::kAll = std::numeric_limits<int>::max();

void CountedMembers::Came(int first) { bounds_.back() = std::min(bounds_.back(), first); }

void CountedMembers::Hear(int first) {
  if (bounds_.back() == kNobody) bounds_.back() = first;
}

void CountedMembers::Enter() {
  if (bounds_.back() < kAll) bounds_.push_back(kAll);
}

void CountedMembers::Stay() {
  if (bounds_.size() > 1) bounds_.pop_back();
}

void CountedMembers::Entered() { bounds_.erase(bounds_.begin(), bounds_.end() - 1); }

}  // namespace cohort::parallel
