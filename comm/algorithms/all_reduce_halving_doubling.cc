// Recursive halving-doubling all-reduce (Rabenseifner; Thakur, Rabenseifner and Gropp, 2005, section 4.4): a
// reduce-scatter by halving, then an all-gather by doubling (halving.h), which for no number of ranks folds any:
// 2 ceil(log2 p) rounds, 2(p-1)/p n bytes.
#include "comm/algorithms/blocks.h"

namespace cohort::comm::algorithms {

Schedule HalvingDoublingAllReduce(const Collective& c) {
  Flow flow(c.in_place ? 0 : c.count, c.count);
  const Team team = Everyone(c);
  const Cuts cuts = EqualCuts(c.count, c.size);
  const Slice work{Buffer::kOutput, 0, c.count};
  const Slice own = Member(work, cuts, c.rank);
  HalvingReduceScatter(flow, team, cuts, Input(c, 0, c.count), work, own);
  DoublingAllGather(flow, team, Slices(work, cuts), own);
  return std::move(flow).Build();
}

}  // namespace cohort::comm::algorithms
