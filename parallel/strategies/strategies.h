// The strategies, a file each. One table (strategies.cc): a row for each placement.
#pragma once

#include <memory>

#include "parallel/strategy.h"

namespace cohort::parallel {

std::unique_ptr<Strategy> MakeDataParallel(const MeshCommunicators& groups);
std::unique_ptr<Strategy> MakeExpertParallel(const MeshCommunicators& groups);

}  // namespace cohort::parallel
