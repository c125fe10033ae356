// Direct scatter: the root sends every rank its part.
#include "comm/algorithms/flow.h"
#include "comm/algorithms/team.h"

namespace cohort::comm::algorithms {

Schedule DirectScatter(const Collective& c) {
  const std::vector<size_t> offsets = Offsets(c.counts);
  const Slice output{Buffer::kOutput, 0, c.in_place ? 0 : c.counts[c.rank]};
  Flow flow(c.rank == c.root ? offsets.back() : 0, output.count);
  if (c.rank != c.root) {
    flow.Recv(c.root, output);
    return std::move(flow).Build();
  }
  for (int distance = 1; distance < c.size; ++distance) {
    const int to = Modulo(c.root + distance, c.size);
    flow.Send(to, {Buffer::kInput, offsets[to], c.counts[to]});
  }
  if (!c.in_place) flow.Copy({Buffer::kInput, offsets[c.root], output.count}, output);
  return std::move(flow).Build();
}

}  // namespace cohort::comm::algorithms
