// The planner's own numbers, in one place.
#pragma once

#include <cstddef>

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

}  // namespace cohort::parallel::planner::policy
