// Direct all-reduce, for ranks that read each other's memory: every rank sums its part of what all hold, then
// reads the other parts. 2(p-1) reads of n/p each, no scratch, and all ranks are read at once.
#include "comm/algorithms/blocks.h"

namespace cohort::comm::algorithms {

Schedule DirectAllReduce(const Collective& c) {
  Flow flow(c.in_place ? 0 : c.count, c.count);
  const Team team = Everyone(c);
  const Cuts cuts = EqualCuts(c.count, c.size);
  const Slice output{Buffer::kOutput, 0, c.count};
  const Slice own = Member(output, cuts, c.rank);
  const auto hosts = Hosts(c);
  DirectReduceScatter(flow, team, cuts, Input(c, 0, c.count), own, hosts.get());
  DirectAllGather(flow, team, Slices(output, cuts), own, hosts.get());
  return std::move(flow).Build();
}

}  // namespace cohort::comm::algorithms
