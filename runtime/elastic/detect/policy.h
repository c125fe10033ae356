// The thresholds by which members of an elastic job are judged, in one place.
#pragma once

#include <cstddef>

namespace cohort::runtime::elastic::detect_policy {

// ---- slow
// What is to be found: a member that takes so many times as long as the others. Half the speed is 2, of which it feels
// less where what slows it falls into its waiting.
inline constexpr double kSlowFactor = 1.85;
// Once found, it is slow until it is below this.
inline constexpr double kEndFactor = 1.2;
// A step counts for at most so much of the evidence, however long it took: so that a few spikes are none. In logarithms.
inline constexpr double kStepEvidence = 0.42;
// Evidence for a verdict: at least what five steps at twice the time give, of so much time: a few steps of some
// milliseconds are what the processor gives to somebody else for a moment.
inline constexpr double kLeastEvidence = 1.75;
inline constexpr double kLeastSeconds = 0.25;
// ... and where times scatter so much that a false alarm is likelier than once in e to the power of this many steps.
inline constexpr double kAlarmExponent = 14;
// Of a mesh, which have what later ones have not: allocations, first touches.
inline constexpr int kFirstSteps = 1;
// Steps by which a step is judged though somebody has not told of it.
inline constexpr int kAhead = 16;
// Steps whose scatter is looked at; whose median is told; of a member's own past, and how many of them make one.
inline constexpr size_t kScatterSteps = 32;
inline constexpr size_t kToldSteps = 8;
inline constexpr size_t kPastSteps = 64;
inline constexpr size_t kLeastPast = 12;
// Steps that a member has told and that are not judged yet.
inline constexpr size_t kPendingSteps = 64;

// ---- told at once (step_watch.h)
// The first steps of a mesh, and those so many times as long as the median of so many before them. Below what a rank at
// half its speed makes of a step of which a third is waiting, and above usual scatter.
inline constexpr size_t kFirstTold = 16;
inline constexpr double kUnusualFactor = 1.25;
inline constexpr size_t kWatchedSteps = 32;

// ---- stopped
// No step for so many usual ones, and for at least so many seconds.
inline constexpr double kStuckSteps = 10;
inline constexpr double kStuckSeconds = 5;

}  // namespace cohort::runtime::elastic::detect_policy
