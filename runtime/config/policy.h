// The limits of configurations, in one place.
#pragma once

#include <cstdint>

namespace cohort::runtime::config_policy {

// A name is taken for a slip of a known one within this many edits, or one edit per so many of its letters.
inline constexpr int kNearestDistance = 2;
inline constexpr int kNearestDistancePerLength = 3;
// Micro-batches of a step for each pipeline rank, where nobody says more: with 1F1B a fifth of the time is bubble at
// most.
inline constexpr int64_t kMicroBatchesPerStage = 4;
// A larger file is not a configuration.
inline constexpr int64_t kMaxFileBytes = int64_t{1} << 20;
// Widths and vocabularies that are worked out are rounded up to this.
inline constexpr int64_t kRoundTo = 64;
// Sequences of a step: more than any run wants, and few enough to be listed.
inline constexpr int64_t kMaxBatch = int64_t{1} << 20;
// Threads of a rank.
inline constexpr int64_t kMaxThreads = 1024;
// Steps of a run that only `train.minutes` ends.
inline constexpr int64_t kUnlimitedSteps = 1'000'000'000;
// Warm-up steps of such a run, where a share of its steps means nothing.
inline constexpr int64_t kUnlimitedWarmup = 100;

}  // namespace cohort::runtime::config_policy
