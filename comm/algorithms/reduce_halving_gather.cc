// Reduce as a reduce-scatter by halving and a gather to the root along a binomial tree (Thakur, Rabenseifner and Gropp,
// 2005, section 4.4): 2 ceil(log2 p) rounds, and no rank sends more than about 2n.
#include <algorithm>
#include <bit>

#include "comm/algorithms/blocks.h"

namespace cohort::comm::algorithms {

Schedule HalvingGatherReduce(const Collective& c) {
  Flow flow(c.in_place ? 0 : c.count, c.rank == c.root ? c.count : 0);
  const Cuts cuts = EqualCuts(c.count, c.size);
  const Team team = From(c, c.root);
  const Slice work = c.rank == c.root ? Slice{Buffer::kOutput, 0, c.count} : flow.Scratch(c.count);
  HalvingReduceScatter(flow, team, cuts, Input(c, 0, c.count), work, Member(work, cuts, team.place));
  const auto range = [&](int first, int number) {
    const int end = std::min(first + number, c.size);
    return work.Part(cuts[first], cuts[end] - cuts[first]);
  };
  int below = static_cast<int>(std::bit_ceil(static_cast<unsigned>(c.size)));
  if (team.place != 0) below = team.place & -team.place;
  for (int bit = 1; bit < below && team.place + bit < c.size; bit *= 2) {
    flow.Recv(team.At(bit), range(team.place + bit, bit));
  }
  if (team.place != 0) flow.Send(team.At(-below), range(team.place, below));
  return std::move(flow).Build();
}

}  // namespace cohort::comm::algorithms
