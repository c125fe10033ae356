// Hierarchical broadcast: one rank of every host gets the data, along a chain where there are pieces (each
// host sends n once) and along a binomial tree where not; the others of the host read each piece from it.
#include <bit>

#include "comm/algorithms/blocks.h"

namespace cohort::comm::algorithms {

Schedule HierarchicalBroadcast(const Collective& c) {
  Flow flow(0, c.count);
  const auto map = Hosts(c);
  const int num_hosts = map->num_hosts();
  const int root_host = map->host_of(c.root), host = map->host_of(c.rank);
  const auto leader = [&](int place) {  // hosts counted from the root's
    const int at = Modulo(root_host + place, num_hosts);
    return at == root_host ? c.root : map->ranks_on(at)[0];
  };
  const int place = Modulo(host - root_host, num_hosts);
  const size_t pieces = NumPieces(c, c.count);
  for (size_t piece = 0; piece < pieces; ++piece) {
    const Range part = Part(c.count, pieces, piece);
    const Slice slice{Buffer::kOutput, part.begin, part.count};
    if (c.rank != leader(place)) {
      flow.Recv(leader(place), slice);
      continue;
    }
    if (pieces > 1) {
      if (place > 0) flow.Recv(leader(place - 1), slice);
      if (place + 1 < num_hosts) flow.Send(leader(place + 1), slice);
    } else {
      int below = static_cast<int>(std::bit_ceil(static_cast<unsigned>(num_hosts)));
      if (place > 0) {
        below = place & -place;
        flow.Recv(leader(place - below), slice);
      }
      for (int bit = below / 2; bit > 0; bit /= 2) {
        if (place + bit < num_hosts) flow.Send(leader(place + bit), slice);
      }
    }
    for (const int other : map->ranks_on(host)) {
      if (other != c.rank) flow.Send(other, slice);
    }
  }
  return std::move(flow).Build();
}

}  // namespace cohort::comm::algorithms
