// Pairwise reduce-scatter: every rank gets its part from each other one and adds it up,
// in the order of distance.
#include "comm/algorithms/team.h"

namespace cohort::comm::algorithms {

Schedule PairwiseReduceScatter(const Collective& c) {
  const std::vector<size_t> offsets = Offsets(c.counts);
  const size_t own = c.counts[c.rank];
  ScheduleBuilder builder(offsets.back(), own);
  const Slice output{Buffer::kOutput, 0, own};
  Slice sum{Buffer::kInput, offsets[c.rank], own};
  if (c.size == 1) builder.Copy(sum, output);
  StepId summed = kNoStep;
  const auto hosts = Hosts(c);
  Turns turns(*hosts, c.rank);
  for (int distance = 1; distance < c.size; ++distance) {
    const int to = Modulo(c.rank + distance, c.size);
    const int from = Modulo(c.rank - distance, c.size);
    turns.Note(to, builder.Send(to, 0, {Buffer::kInput, offsets[to], c.counts[to]}, {turns.Before(to)}));
    summed = builder.RecvReduce(from, 0, sum, output, {summed});
    sum = output;
  }
  return std::move(builder).Build();
}

}  // namespace cohort::comm::algorithms
