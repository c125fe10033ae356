// Direct gather: every rank sends its part to the root.
#include "comm/algorithms/flow.h"
#include "comm/algorithms/team.h"

namespace cohort::comm::algorithms {

Schedule DirectGather(const Collective& c) {
  const std::vector<size_t> offsets = Offsets(c.counts);
  const size_t own = c.counts[c.rank];
  Flow flow(c.in_place ? 0 : own, c.rank == c.root ? offsets.back() : 0);
  if (c.rank != c.root) {
    flow.Send(c.root, {Buffer::kInput, 0, own});
    return std::move(flow).Build();
  }
  for (int distance = 1; distance < c.size; ++distance) {
    const int from = Modulo(c.root + distance, c.size);
    flow.Recv(from, {Buffer::kOutput, offsets[from], c.counts[from]});
  }
  if (!c.in_place) flow.Copy({Buffer::kInput, 0, own}, {Buffer::kOutput, offsets[c.root], own});
  return std::move(flow).Build();
}

}  // namespace cohort::comm::algorithms
