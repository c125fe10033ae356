// Direct reduce: the root reads what every rank brings and adds it up, in the order of distance. One round; the root's
// link carries everything.
#include "comm/algorithms/flow.h"
#include "comm/algorithms/team.h"

namespace cohort::comm::algorithms {

Schedule DirectReduce(const Collective& c) {
  Flow flow(c.in_place ? 0 : c.count, c.rank == c.root ? c.count : 0);
  Slice sum = Input(c, 0, c.count);
  if (c.rank != c.root) {
    flow.Send(c.root, sum);
    return std::move(flow).Build();
  }
  const Slice output{Buffer::kOutput, 0, c.count};
  for (int distance = 1; distance < c.size; ++distance) {
    flow.RecvReduce(Modulo(c.root + distance, c.size), sum, output);
    sum = output;
  }
  flow.Copy(sum, output);
  return std::move(flow).Build();
}

}  // namespace cohort::comm::algorithms
