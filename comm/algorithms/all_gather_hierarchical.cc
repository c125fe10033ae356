// Hierarchical all-gather: the owners of each rail gather its parts across hosts, so that every part comes to
// a host once, and the other ranks of the host read them from there as they come.
#include "comm/algorithms/blocks.h"

namespace cohort::comm::algorithms {

Schedule HierarchicalAllGather(const Collective& c) {
  const Cuts offsets = Offsets(c.counts);
  Flow flow(c.in_place ? 0 : c.counts[c.rank], offsets.back());
  const Rails rails(c);
  const Team local = rails.Local();
  const Slice output{Buffer::kOutput, 0, offsets.back()};
  const Slice home = Member(output, offsets, c.rank);
  const Slice own = c.in_place ? home : Slice{Buffer::kInput, 0, c.counts[c.rank]};
  for (int rail = 0; rail < rails.num_rails(); ++rail) {
    const Team across = rails.Across(rail);
    const int owner = across.ranks[across.place];
    std::vector<Slice> parts;  // by host
    for (const int block : rails.Blocks(rail)) {
      parts.push_back(block < 0 ? output.Part(0, 0) : Member(output, offsets, block));
    }
    if (owner == c.rank) {
      const Slice& mine = parts[across.place];
      DoublingAllGather(flow, across, parts, mine == home ? own : mine);
      for (int distance = 1; distance < local.size(); ++distance) {
        for (const Slice& part : parts) flow.Send(local.At(distance), part == home ? own : part);
      }
    } else {
      for (const Slice& part : parts) flow.Recv(owner, part);
    }
  }
  return std::move(flow).Build();
}

}  // namespace cohort::comm::algorithms
