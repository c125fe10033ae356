// Constants of what is shown and written of a run.
#pragma once

#include <cstdint>

namespace cohort::runtime::metrics_policy {

// Steps over which the progress line averages speeds.
inline constexpr int64_t kProgressWindow = 20;

}  // namespace cohort::runtime::metrics_policy
