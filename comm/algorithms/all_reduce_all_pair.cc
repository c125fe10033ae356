// All-pair all-reduce: everyone sends everything to everyone and sums it all, in the order of ranks: one
// round, the same bits everywhere. For few bytes and few ranks.
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
  std::vector<Slice> brought(c.size, input);  // all arrive at once
  for (int from = 0; from < c.size; ++from) {
    if (from == c.rank) continue;
    if (from == 1 - c.rank) {  // rank 0's plus rank 1's: an addition commutes
      flow.RecvReduce(from, input, sum);
      continue;
    }
    brought[from] = from == 0 ? sum : flow.Scratch(c.count);
    flow.Recv(from, brought[from]);
  }
  for (int from = c.rank > 1 ? 1 : 2; from < c.size; ++from) flow.Reduce(brought[from], sum);
  if (c.size > 1) flow.Copy(sum, output);
  return std::move(flow).Build();
}

}  // namespace cohort::comm::algorithms
