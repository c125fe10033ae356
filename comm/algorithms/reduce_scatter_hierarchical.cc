// Hierarchical reduce-scatter: inside every host, the owner of a lane sums by reading what the host's ranks
// bring for the ranks of this lane anywhere; then the owners of the lane reduce-scatter across hosts. Every
// sum of a host crosses to another once: a host sends (H-1)/H n, in ceil(log2 H) rounds, or directly in one.
#include "comm/algorithms/blocks.h"

namespace cohort::comm::algorithms {

namespace {

enum class Across { kHalving, kDirect };

Schedule Make(const Collective& c, Across how) {
  const Cuts offsets = Offsets(c.counts);
  Flow flow(offsets.back(), c.counts[c.rank]);
  const Lanes lanes(c);
  const Team local = lanes.Local();
  const Slice input{Buffer::kInput, 0, offsets.back()};
  const Slice output{Buffer::kOutput, 0, c.counts[c.rank]};
  for (int lane = 0; lane < lanes.num_lanes(); ++lane) {
    const Team across = lanes.Across(lane);
    const std::vector<int> blocks = lanes.Blocks(lane);
    Cuts cuts(1, 0);
    for (const int block : blocks) cuts.push_back(cuts.back() + (block < 0 ? 0 : c.counts[block]));
    const int owner = across.ranks[across.place];
    const bool own = owner == c.rank;
    // What comes home from the other hosts is added last.
    const Slice work = own && lanes.num_hosts() > 1 ? flow.Scratch(cuts.back()) : output;
    for (int host = 0; host < lanes.num_hosts(); ++host) {
      if (blocks[host] < 0) continue;
      const Slice block = Member(input, offsets, blocks[host]);
      if (!own) {
        flow.Send(owner, block);
        continue;
      }
      const Slice target = lanes.num_hosts() > 1 ? Member(work, cuts, host) : output;
      Slice sum = block;
      for (int distance = 1; distance < local.size(); ++distance) {
        flow.RecvReduce(local.At(-distance), sum, target);
        sum = target;
      }
      if (local.size() == 1) flow.Copy(block, target);
    }
    if (!own || lanes.num_hosts() == 1) continue;
    const Slice result = blocks[across.place] < 0 ? Member(work, cuts, across.place) : output;
    if (how == Across::kHalving) {
      HalvingReduceScatter(flow, across, cuts, work, work, result);
    } else {
      DirectReduceScatter(flow, across, cuts, work, result, &lanes.hosts());
    }
  }
  return std::move(flow).Build();
}

}  // namespace

Schedule HierarchicalReduceScatter(const Collective& c) { return Make(c, Across::kHalving); }
Schedule HierarchicalDirectReduceScatter(const Collective& c) { return Make(c, Across::kDirect); }

}  // namespace cohort::comm::algorithms
