// Measures what messages cost, between a few pairs of ranks, when a communicator is made.
#pragma once

#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "comm/communicator.h"
#include "comm/tuner/agreement.h"

namespace cohort::comm {

// Two ranks that exchange messages; the first one measures.
struct MeasuredPair {
  int measurer = 0, partner = 0;
  Distance distance = Distance::kRack;
};

// Where hosts are several, one pair for each two of them side by side, at most policy::kMeasuredPairs; then, for each
// distance inside a host that some two ranks have, the first such pair. A rank that is in several measures one after
// the other.
std::vector<MeasuredPair> PairsToMeasure(const HostMap& hosts);

// This rank's part in a pair: `group` is these two, the measurer first, and is used for nothing else; its timeout ends
// what goes wrong. To the measurer, what it found, without its distance; to the partner, nullopt.
//
// The latency and the gap are those of messages that both send at once and nobody confirms, as in the rounds of
// collectives: a message that waits for an answer costs its sender a second one.
absl::StatusOr<std::optional<MeasuredLink>> MeasurePair(Communicator& group);

}  // namespace cohort::comm
