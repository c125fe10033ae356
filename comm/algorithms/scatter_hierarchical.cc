// Hierarchical scatter: the root sends the parts of a host to one of its ranks as one message, from which the others
// read theirs. Ranks on the root's host read from the root.
#include "comm/algorithms/bundle.h"
#include "comm/algorithms/flow.h"

namespace cohort::comm::algorithms {

Schedule HierarchicalScatter(const Collective& c) {
  const std::vector<size_t> offsets = Offsets(c.counts);
  const Leaders leaders(c);
  const int leader = leaders.At(leaders.place());
  const Slice output{Buffer::kOutput, 0, c.in_place ? 0 : c.counts[c.rank]};
  Flow flow(c.rank == c.root ? offsets.back() : 0, output.count);
  if (c.rank != leader) {
    flow.Recv(leader, output);
    return std::move(flow).Build();
  }
  const auto local = leaders.hosts().ranks_on(leaders.HostAt(leaders.place()));
  if (c.rank != c.root) {
    const Bundle bundle(offsets, local);
    const Slice work = flow.Scratch(bundle.count());
    flow.Recv(c.root, work);
    for (size_t i = 0; i < local.size(); ++i) {
      if (local[i] != c.rank) flow.Send(local[i], bundle.Packed(work, i));
      if (local[i] == c.rank) flow.Copy(bundle.Packed(work, i), output);
    }
    return std::move(flow).Build();
  }
  const Slice all{Buffer::kInput, 0, offsets.back()};
  for (int place = 1; place < leaders.size(); ++place) {
    const auto ranks = leaders.hosts().ranks_on(leaders.HostAt(place));
    const Bundle bundle(offsets, ranks);
    if (bundle.contiguous()) {
      flow.Send(leaders.At(place), bundle.Whole(all));
      continue;
    }
    const Slice packed = flow.Scratch(bundle.count());
    for (size_t i = 0; i < ranks.size(); ++i) flow.Copy(bundle.Unpacked(all, i), bundle.Packed(packed, i));
    flow.Send(leaders.At(place), packed);
  }
  for (const int rank : local) {
    if (rank != c.rank) flow.Send(rank, all.Part(offsets[rank], c.counts[rank]));
  }
  if (!c.in_place) flow.Copy(all.Part(offsets[c.rank], c.counts[c.rank]), output);
  return std::move(flow).Build();
}

}  // namespace cohort::comm::algorithms
