#include "parallel/strategies/strategies.h"

namespace cohort::parallel {

std::vector<std::unique_ptr<Strategy>> MakeStrategies(const MeshCommunicators& groups) {
  constexpr std::unique_ptr<Strategy> (*kTable[])(const MeshCommunicators&) = {
      MakeDataParallel,
      MakeExpertParallel,
  };
  std::vector<std::unique_ptr<Strategy>> strategies;
  for (const auto& make : kTable) strategies.push_back(make(groups));
  return strategies;
}

}  // namespace cohort::parallel
