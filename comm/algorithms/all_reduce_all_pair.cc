// All-pair all-reduce: everyone sends everything to everyone and sums it all, in the order of ranks: one round, the same
// bits everywhere. For few bytes and few ranks.
#include "comm/algorithms/blocks.h"

namespace cohort::comm::algorithms {

Schedule AllPairAllReduce(const Collective& c) {
  Flow flow(c.in_place ? 0 : c.count, c.count);
  const Team team = Everyone(c);
  const Slice input = Input(c, 0, c.count);
  const Slice output{Buffer::kOutput, 0, c.count};
  for (int distance = 1; distance < c.size; ++distance) flow.Send(team.At(distance), input);
  if (c.size == 1) flow.Copy(input, output);
  // In place, the own input stays until it has been sent.
  const Slice sum = c.in_place && c.size > 1 ? flow.Scratch(c.count) : output;
  for (int from = 0; from < c.size && c.size > 1; ++from) {
    if (c.rank == 0 && from == 0) continue;  // comes with rank 1's
    if (c.rank <= 1 && from == 1 - c.rank) {
      flow.RecvReduce(from, input, sum);  // an addition commutes: rank 0's plus rank 1's
    } else if (from == c.rank) {
      if (from > 1) flow.Reduce(input, sum);
    } else if (from == 0) {
      flow.Recv(from, sum);
    } else {
      flow.RecvReduce(from, sum, sum);
    }
  }
  if (c.size > 1) flow.Copy(sum, output);
  return std::move(flow).Build();
}

}  // namespace cohort::comm::algorithms
