#include "serving/stop.h"

#include <algorithm>
#include <utility>

namespace cohort::serving {

StopMatcher::StopMatcher(std::vector<std::string> stops, bool include_stop)
    : stops_(std::move(stops)), include_stop_(include_stop) {}

StopMatcher::Result StopMatcher::Add(std::string_view text, bool armed) {
  Result result;
  if (stops_.empty()) {
    result.text = text;
    return result;
  }
  const size_t known = held_.size();  // no match that counts ends within these
  held_ += text;
  if (armed) {
    size_t best_end = std::string::npos, best_begin = 0;
    const std::string* best = nullptr;
    for (const std::string& stop : stops_) {
      const size_t from = known >= stop.size() ? known - stop.size() + 1 : 0;
      const size_t begin = held_.find(stop, from);
      if (begin == std::string::npos) continue;
      const size_t end = begin + stop.size();
      if (end < best_end || (end == best_end && begin < best_begin)) {
        best_end = end, best_begin = begin, best = &stop;
      }
    }
    if (best != nullptr) {
      result.matched = *best;
      result.text = held_.substr(0, include_stop_ ? best_end : best_begin);
      held_.clear();
      return result;
    }
  }
  size_t keep = 0;
  for (const std::string& stop : stops_) {
    for (size_t length = std::min(stop.size() - 1, held_.size()); length > keep; --length) {
      if (std::string_view(held_).substr(held_.size() - length) == std::string_view(stop).substr(0, length)) {
        keep = length;
        break;
      }
    }
  }
  result.text = held_.substr(0, held_.size() - keep);
  held_.erase(0, held_.size() - keep);
  return result;
}

std::string StopMatcher::Finish() { return std::exchange(held_, {}); }

}  // namespace cohort::serving
