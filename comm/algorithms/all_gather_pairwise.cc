// Pairwise all-gather: each rank gets the part of every other from itself. For ranks that read each other's memory, and
// for few of them on different hosts.
#include "comm/algorithms/blocks.h"

namespace cohort::comm::algorithms {

Schedule PairwiseAllGather(const Collective& c) {
  const Cuts cuts = Offsets(c.counts);
  Flow flow(c.in_place ? 0 : c.counts[c.rank], cuts.back());
  const Slice output{Buffer::kOutput, 0, cuts.back()};
  const Slice own = c.in_place ? Member(output, cuts, c.rank) : Slice{Buffer::kInput, 0, c.counts[c.rank]};
  DirectAllGather(flow, Everyone(c), Slices(output, cuts), own, Hosts(c).get());
  return std::move(flow).Build();
}

}  // namespace cohort::comm::algorithms
