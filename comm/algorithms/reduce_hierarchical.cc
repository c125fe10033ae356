// Hierarchical reduce: one rank of every host adds up what the host's ranks bring by reading it; those ranks add up
// along a chain where there are pieces (each host sends n once) and along a binomial tree where not.
#include <bit>

#include "comm/algorithms/flow.h"
#include "comm/algorithms/team.h"

namespace cohort::comm::algorithms {

Schedule HierarchicalReduce(const Collective& c) {
  Flow flow(c.in_place ? 0 : c.count, c.rank == c.root ? c.count : 0);
  const Leaders leaders(c);
  const int place = leaders.place();
  const bool leads = leaders.At(place) == c.rank;
  const size_t pieces = NumPieces(c, c.count);
  const Slice work =
      c.rank == c.root ? Slice{Buffer::kOutput, 0, c.count} : flow.Scratch(leads ? c.count : 0);
  for (size_t piece = 0; piece < pieces; ++piece) {
    const Range part = Part(c.count, pieces, piece);
    Slice sum = Input(c, part.begin, part.count);
    if (!leads) {
      flow.Send(leaders.At(place), sum);
      continue;
    }
    const Slice target = work.Part(part.begin, part.count);
    const auto add = [&](int peer) {
      flow.RecvReduce(peer, sum, target);
      sum = target;
    };
    for (const int other : leaders.hosts().ranks_on(leaders.HostAt(place))) {
      if (other != c.rank) add(other);
    }
    if (pieces > 1) {
      if (place + 1 < leaders.size()) add(leaders.At(place + 1));
      if (place > 0) flow.Send(leaders.At(place - 1), sum);
    } else {
      int below = static_cast<int>(std::bit_ceil(static_cast<unsigned>(leaders.size())));
      if (place > 0) below = place & -place;
      for (int bit = 1; bit < below && place + bit < leaders.size(); bit *= 2) add(leaders.At(place + bit));
      if (place > 0) flow.Send(leaders.At(place - below), sum);
    }
    if (c.rank == c.root) flow.Copy(sum, target);
  }
  return std::move(flow).Build();
}

}  // namespace cohort::comm::algorithms
