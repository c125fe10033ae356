// Binomial-tree reduce: sums go up a tree of depth log2 p, the smallest subtrees first.
#include <bit>

#include "comm/algorithms/flow.h"
#include "comm/algorithms/team.h"

namespace cohort::comm::algorithms {

Schedule BinomialReduce(const Collective& c) {
  Flow flow(c.in_place ? 0 : c.count, c.rank == c.root ? c.count : 0);
  const int place = Modulo(c.rank - c.root, c.size);  // the root is 0; the parent lacks the lowest set bit
  const int below =
      place == 0 ? static_cast<int>(std::bit_ceil(static_cast<unsigned>(c.size))) : place & -place;
  Slice sum = Input(c, 0, c.count);
  Slice work{Buffer::kOutput, 0, c.count};
  if (place != 0 && below > 1 && place + 1 < c.size) work = flow.Scratch(c.count);
  for (int bit = 1; bit < below && place + bit < c.size; bit *= 2) {
    flow.RecvReduce(Modulo(c.rank + bit, c.size), sum, work);
    sum = work;
  }
  if (place != 0) {
    flow.Send(Modulo(c.rank - below, c.size), sum);
  } else {
    flow.Copy(sum, work);
  }
  return std::move(flow).Build();
}

}  // namespace cohort::comm::algorithms
