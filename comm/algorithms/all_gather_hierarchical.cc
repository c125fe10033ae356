// Hierarchical all-gather: the owners of each lane gather its parts across hosts, so that every part comes to
// a host once, and the other ranks of the host read them from there as they come. Across hosts in ceil(log2 H) rounds,
// or directly in one.
#include "comm/algorithms/blocks.h"

namespace cohort::comm::algorithms {

namespace {

enum class Across { kDoubling, kDirect };

Schedule Make(const Collective& c, Across how) {
  const Cuts offsets = Offsets(c.counts);
  Flow flow(c.in_place ? 0 : c.counts[c.rank], offsets.back());
  const Lanes lanes(c);
  const Team local = lanes.Local();
  const Slice output{Buffer::kOutput, 0, offsets.back()};
  const Slice home = Member(output, offsets, c.rank);
  const Slice own = c.in_place ? home : Slice{Buffer::kInput, 0, c.counts[c.rank]};
  for (int lane = 0; lane < lanes.num_lanes(); ++lane) {
    const Team across = lanes.Across(lane);
    const int owner = across.ranks[across.place];
    std::vector<Slice> parts;  // by host
    for (const int block : lanes.Blocks(lane)) {
      parts.push_back(block < 0 ? output.Part(0, 0) : Member(output, offsets, block));
    }
    if (owner == c.rank) {
      const Slice& mine = parts[across.place];
      const Slice& first = mine == home ? own : mine;
      if (how == Across::kDoubling) {
        DoublingAllGather(flow, across, parts, first);
      } else {
        DirectAllGather(flow, across, parts, first, &lanes.hosts());
      }
      for (int distance = 1; distance < local.size(); ++distance) {
        for (const Slice& part : parts) flow.Send(local.At(distance), part == home ? own : part);
      }
    } else {
      for (const Slice& part : parts) flow.Recv(owner, part);
    }
  }
  return std::move(flow).Build();
}

}  // namespace

Schedule HierarchicalAllGather(const Collective& c) { return Make(c, Across::kDoubling); }
Schedule HierarchicalDirectAllGather(const Collective& c) { return Make(c, Across::kDirect); }

}  // namespace cohort::comm::algorithms
