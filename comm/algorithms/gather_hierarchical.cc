// Hierarchical gather: one rank of every host reads the parts of its host and sends them to the root as one message.
// Ranks on the root's host send to the root.
#include "comm/algorithms/bundle.h"
#include "comm/algorithms/flow.h"

namespace cohort::comm::algorithms {

Schedule HierarchicalGather(const Collective& c) {
  const std::vector<size_t> offsets = Offsets(c.counts);
  const Leaders leaders(c);
  const int leader = leaders.At(leaders.place());
  Flow flow(c.in_place ? 0 : c.counts[c.rank], c.rank == c.root ? offsets.back() : 0);
  const Slice input = Input(c, c.in_place ? offsets[c.rank] : 0, c.counts[c.rank]);
  if (c.rank != leader) {
    flow.Send(leader, input);
    return std::move(flow).Build();
  }
  const auto local = leaders.hosts().ranks_on(leaders.HostAt(leaders.place()));
  const Slice all{Buffer::kOutput, 0, offsets.back()};
  if (c.rank != c.root) {
    const Bundle bundle(offsets, local);
    const Slice work = flow.Scratch(bundle.count());
    for (size_t i = 0; i < local.size(); ++i) {
      if (local[i] != c.rank) flow.Recv(local[i], bundle.Packed(work, i));
      if (local[i] == c.rank) flow.Copy(input, bundle.Packed(work, i));
    }
    flow.Send(c.root, work);
    return std::move(flow).Build();
  }
  for (const int rank : local) {
    if (rank != c.rank) flow.Recv(rank, all.Part(offsets[rank], c.counts[rank]));
  }
  for (int place = 1; place < leaders.size(); ++place) {
    const auto ranks = leaders.hosts().ranks_on(leaders.HostAt(place));
    const Bundle bundle(offsets, ranks);
    if (bundle.contiguous()) {
      flow.Recv(leaders.At(place), bundle.Whole(all));
      continue;
    }
    const Slice came = flow.Scratch(bundle.count());
    flow.Recv(leaders.At(place), came);
    for (size_t i = 0; i < ranks.size(); ++i) flow.Copy(bundle.Packed(came, i), bundle.Unpacked(all, i));
  }
  flow.Copy(input, all.Part(offsets[c.rank], c.counts[c.rank]));
  return std::move(flow).Build();
}

}  // namespace cohort::comm::algorithms
