// Broadcast as a binomial scatter and an all-gather by doubling (van de Geijn; Thakur, Rabenseifner and
// Gropp, 2005, section 4.2): 2 ceil(log2 p) rounds, and no rank sends more than about 2n.
#include <algorithm>
#include <bit>

#include "comm/algorithms/blocks.h"

namespace cohort::comm::algorithms {

Schedule ScatterAllGatherBroadcast(const Collective& c) {
  Flow flow(0, c.count);
  const Slice all{Buffer::kOutput, 0, c.count};
  const Cuts cuts = EqualCuts(c.count, c.size);
  Team team;  // counted from the root
  for (int place = 0; place < c.size; ++place) team.ranks.push_back(Modulo(c.root + place, c.size));
  team.place = Modulo(c.rank - c.root, c.size);
  const auto range = [&](int first, int number) {
    const int end = std::min(first + number, c.size);
    return all.Part(cuts[first], cuts[end] - cuts[first]);
  };
  int below = static_cast<int>(std::bit_ceil(static_cast<unsigned>(c.size)));
  if (team.place != 0) {
    below = team.place & -team.place;
    flow.Recv(team.At(-below), range(team.place, below));
  }
  for (int bit = below / 2; bit > 0; bit /= 2) {
    if (team.place + bit < c.size) flow.Send(team.At(bit), range(team.place + bit, bit));
  }
  DoublingAllGather(flow, team, Slices(all, cuts), Member(all, cuts, team.place));
  return std::move(flow).Build();
}

}  // namespace cohort::comm::algorithms
