// Bruck's all-gather (Bruck et al., 1997): before the round of distance d a rank holds the blocks of the d
// ranks from itself on, and fetches as many from rank + d. Blocks go to their final places at once, so
// nothing is rotated at the end; a range that wraps around the last rank travels as two messages.
#include <algorithm>

#include "comm/algorithms/algorithm.h"

namespace cohort::comm::algorithms {

Schedule BruckAllGather(const Collective& c) {
  const std::vector<size_t> offsets = Offsets(c.counts);
  const size_t own = c.counts[c.rank];
  ScheduleBuilder builder(c.in_place ? 0 : own, offsets.back());
  std::vector<StepId> held;  // steps that brought what this rank holds
  const Slice home{Buffer::kOutput, offsets[c.rank], own};
  if (!c.in_place) held.push_back(builder.Copy({Buffer::kInput, 0, own}, home));

  // Blocks [first, first + number) modulo the size, as at most two slices.
  const auto blocks = [&](int first, int number) {
    const int end = std::min(first + number, c.size);
    const int wrapped = first + number - end;
    return std::pair<Slice, Slice>{{Buffer::kOutput, offsets[first], offsets[end] - offsets[first]},
                                   {Buffer::kOutput, 0, offsets[wrapped]}};
  };
  uint32_t tag = 0;
  for (int distance = 1; distance < c.size; distance *= 2, tag += 2) {
    const int number = std::min(distance, c.size - distance);
    const int to = Modulo(c.rank - distance, c.size);
    const int from = Modulo(c.rank + distance, c.size);
    const auto [out, out_wrapped] = blocks(c.rank, number);
    const auto [in, in_wrapped] = blocks(from, number);
    // The own block goes out of the input, without waiting for its copy.
    const bool own_only = distance == 1 && !c.in_place;
    if (own_only) {
      builder.Send(to, tag, {Buffer::kInput, 0, own});
    } else {
      builder.Send(to, tag, out, held);
    }
    builder.Send(to, tag + 1, out_wrapped, held);
    held.push_back(builder.Recv(from, tag, in));
    held.push_back(builder.Recv(from, tag + 1, in_wrapped));
  }
  return std::move(builder).Build();
}

}  // namespace cohort::comm::algorithms
