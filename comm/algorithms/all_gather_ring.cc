// Ring all-gather: everyone hands on what came last.
#include <algorithm>

#include "comm/algorithms/algorithm.h"

namespace cohort::comm::algorithms {

Schedule RingAllGather(const Collective& c) {
  const std::vector<size_t> offsets = Offsets(c.counts);
  const size_t own = c.counts[c.rank];
  ScheduleBuilder builder(c.in_place ? 0 : own, offsets.back());
  const Slice home{Buffer::kOutput, offsets[c.rank], own};
  if (!c.in_place) builder.Copy({Buffer::kInput, 0, own}, home);
  const int right = Modulo(c.rank + 1, c.size);
  const int left = Modulo(c.rank - 1, c.size);
  const size_t pieces = NumPieces(c, *std::max_element(c.counts.begin(), c.counts.end()));
  for (size_t piece = 0; piece < pieces; ++piece) {
    StepId came = kNoStep;
    for (int s = 0; s + 1 < c.size; ++s) {
      const uint32_t tag = static_cast<uint32_t>(s * pieces + piece);
      const int out = Modulo(c.rank - s, c.size);
      const int in = Modulo(c.rank - s - 1, c.size);
      const Range out_part = Part(c.counts[out], pieces, piece);
      const Range in_part = Part(c.counts[in], pieces, piece);
      const Slice first = c.in_place ? home : Slice{Buffer::kInput, 0, own};
      const Slice from = s == 0 ? first.Part(out_part.begin, out_part.count)
                                : Slice{Buffer::kOutput, offsets[out] + out_part.begin, out_part.count};
      builder.Send(right, tag, from, {came});
      came = builder.Recv(left, tag, {Buffer::kOutput, offsets[in] + in_part.begin, in_part.count});
    }
  }
  return std::move(builder).Build();
}

}  // namespace cohort::comm::algorithms
