// The limits and rhythms of what a run reports, in one place.
#pragma once

#include <cstddef>

namespace cohort::runtime::metrics_policy {

// Seconds between two drawings of the progress line on a terminal.
inline constexpr double kRedrawSeconds = 0.1;
// The rate shown is a moving average; a step's weight falls to 1/e after so many steps.
inline constexpr double kSmoothingSteps = 20;
// Events that a trace keeps in memory before it writes them.
inline constexpr size_t kTraceBufferEvents = 4096;

}  // namespace cohort::runtime::metrics_policy
