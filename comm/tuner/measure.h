// Measures what messages cost, among a few ranks, when a communicator is made.
#pragma once

#include <vector>

#include "comm/group_communicator.h"
#include "comm/tuner/agreement.h"

namespace cohort::comm {

// Two ranks or more, each so far from the others, that exchange messages; the first one measures.
struct MeasuredTeam {
  std::vector<int> ranks;
  Distance distance = Distance::kRack;
};

// Where hosts are several, a rank of each of the first policy::kMeasuredHosts, in teams of at most
// policy::kMeasuredTeam; then, for each distance inside a host that some two ranks have, the first two such. A rank that
// is in several measures in one after the other.
std::vector<MeasuredTeam> TeamsToMeasure(const HostMap& hosts);

// This rank's part in it. `group` is used for nothing else; its timeout ends what goes wrong. What could not be
// measured is left out.
std::vector<MeasuredLink> MeasureLinks(GroupCommunicator& group, const std::vector<MeasuredTeam>& teams);

}  // namespace cohort::comm
