// Measures what messages cost, between a few pairs of ranks, when a communicator is made.
#pragma once

#include <vector>

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

// This rank's part in it. `group` is used for nothing else; its timeout ends what goes wrong. What could not be
// measured is left out.
std::vector<MeasuredLink> MeasureLinks(Communicator& group, const std::vector<MeasuredPair>& pairs);

}  // namespace cohort::comm
