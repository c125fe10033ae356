// The planner's own numbers, in one place.
#pragma once

#include <cstddef>
#include <cstdint>

namespace cohort::parallel::planner::policy {

// Plans that are kept, ranked.
inline constexpr size_t kKeptPlans = 10;
// Groups are priced message by message up to so many ranks (or four hosts); beyond, by the trend of the last doubling.
inline constexpr int kPricedRanks = 64;
// On more ranks than these only spans of the shard axis are tried that divide a host or are whole hosts.
inline constexpr int kEverySpanUpTo = 64;
// Micro-batches that are tried: a rank's whole share and 1, 2, 4, .. sequences, so many in all.
inline constexpr size_t kMicroBatches = 5;
// The part of computing time behind which gathers and reductions can hide, where nothing else is declared. On
// processors that also move the data it is below one. Assumed.
inline constexpr double kOverlap = 0.8;
// How wrong a prediction may be that was compared with no measured step. Assumed, not measured.
inline constexpr double kAssumedError = 0.25;
// Pipelines of up to so many actions (stages x micro-batches) are simulated before they are ranked at the end.
inline constexpr double kSimulatedActions = 4'000;

// ---- Measuring what layers take ----

// In all, about.
inline constexpr double kMeasuringSeconds = 1.0;
// Of which the middle one counts.
inline constexpr int kMeasuredRuns = 3;
// So many layers of one kind are run that their weights do not stay in a cache, at most so many.
inline constexpr double kMeasuredWeightBytes = 64e6;
inline constexpr int kMeasuredBlocks = 4;
// Of the embedding that feeds them.
inline constexpr int64_t kMeasuredVocabulary = 512;
// Elements that an optimizer updates.
inline constexpr int64_t kMeasuredUpdate = 1 << 21;
// What ranks that compute at once take from each other, and what it costs that two of them meet, is seen with blocks of
// so many tokens, run for so many seconds, between so few and so many times.
inline constexpr int64_t kSharedTokens = 16;
inline constexpr double kSharedSeconds = 0.2;
inline constexpr int kSharedRunsFewest = 5, kSharedRunsMost = 100;
// A model whose largest layer takes a larger part of a rank's memory than this is not measured; the rate of a plain
// product stands for its layers.
inline constexpr double kMeasuredMemory = 0.125;

}  // namespace cohort::parallel::planner::policy
