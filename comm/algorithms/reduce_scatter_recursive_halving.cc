// Recursive-halving reduce-scatter, for any number of ranks: ceil(log2 p) rounds, (p-1)/p n bytes. Partial
// sums are in scratch.
#include "comm/algorithms/blocks.h"

namespace cohort::comm::algorithms {

Schedule RecursiveHalvingReduceScatter(const Collective& c) {
  const Cuts cuts = Offsets(c.counts);
  Flow flow(cuts.back(), c.counts[c.rank]);
  const Slice work = flow.Scratch(c.size > 2 ? cuts.back() : 0);
  HalvingReduceScatter(flow, Everyone(c), cuts, {Buffer::kInput, 0, cuts.back()},
                       c.size > 2 ? work : Slice{Buffer::kInput, 0, cuts.back()},
                       {Buffer::kOutput, 0, c.counts[c.rank]});
  return std::move(flow).Build();
}

}  // namespace cohort::comm::algorithms
