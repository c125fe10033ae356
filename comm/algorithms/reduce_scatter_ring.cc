// Ring reduce-scatter: partial sums go round the ring, each rank adds its share, and the last one keeps it.
#include <algorithm>

#include "comm/algorithms/algorithm.h"

namespace cohort::comm::algorithms {

Schedule RingReduceScatter(const Collective& c) {
  const std::vector<size_t> offsets = Offsets(c.counts);
  const size_t own = c.counts[c.rank];
  ScheduleBuilder builder(offsets.back(), own);
  if (c.size == 1) {
    builder.Copy({Buffer::kInput, 0, own}, {Buffer::kOutput, 0, own});
    return std::move(builder).Build();
  }
  const int right = Modulo(c.rank + 1, c.size);
  const int left = Modulo(c.rank - 1, c.size);
  const int steps = c.size - 1;
  const size_t longest = *std::max_element(c.counts.begin(), c.counts.end());
  const size_t pieces = NumPieces(c, longest);
  for (size_t piece = 0; piece < pieces; ++piece) {
    // Partial sums wait in two buffers in turn: one is filled while the other is read by the neighbour.
    const size_t room = Part(longest, pieces, piece).count;
    const Slice scratch[2] = {steps > 1 ? builder.Scratch(room) : Slice{},
                              steps > 2 ? builder.Scratch(room) : Slice{}};
    const auto range = [&](int chunk) {
      const int at = Modulo(chunk, c.size);
      const Range part = Part(c.counts[at], pieces, piece);
      return Range{offsets[at] + part.begin, part.count};
    };
    StepId emptied[2] = {kNoStep, kNoStep};  // the last send out of each
    StepId reduced = kNoStep;
    // Step s passes chunk rank-1-s on; after the last, chunk rank has come home.
    for (int s = 0; s < steps; ++s) {
      const uint32_t tag = static_cast<uint32_t>(s * pieces + piece);
      const Range out = range(c.rank - 1 - s);
      const Range in = range(c.rank - 2 - s);
      const Slice from =
          s == 0 ? Slice{Buffer::kInput, out.begin, out.count} : scratch[(s - 1) % 2].Part(0, out.count);
      const Range home = Part(own, pieces, piece);
      const Slice to =
          s == steps - 1 ? Slice{Buffer::kOutput, home.begin, home.count} : scratch[s % 2].Part(0, in.count);
      const StepId sent = builder.Send(right, tag, from, {reduced});
      if (s > 0 && sent != kNoStep) emptied[(s - 1) % 2] = sent;
      const StepId free = s == steps - 1 ? kNoStep : emptied[s % 2];
      reduced = builder.RecvReduce(left, tag, {Buffer::kInput, in.begin, in.count}, to, {free});
    }
  }
  return std::move(builder).Build();
}

}  // namespace cohort::comm::algorithms
