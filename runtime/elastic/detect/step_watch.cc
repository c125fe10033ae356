#include "runtime/elastic/detect/step_watch.h"

#include <algorithm>
#include <vector>

#include "runtime/elastic/detect/policy.h"

namespace cohort::runtime::elastic {

bool StepWatch::Unusual(double seconds) {
  bool unusual = past_.size() < detect_policy::kFirstTold;
  if (!unusual) {
    std::vector<double> sorted(past_.begin(), past_.end());
    const auto middle = sorted.begin() + static_cast<std::ptrdiff_t>(sorted.size() / 2);
    std::nth_element(sorted.begin(), middle, sorted.end());
    unusual = seconds > detect_policy::kUnusualFactor * *middle;
  }
  past_.push_back(seconds);
  if (past_.size() > detect_policy::kWatchedSteps) past_.pop_front();
  return unusual;
}

}  // namespace cohort::runtime::elastic
