// Chain broadcast: pieces go from rank to rank, starting at the root, all links busy at once.
#include "comm/algorithms/algorithm.h"

namespace cohort::comm::algorithms {

Schedule ChainBroadcast(const Collective& c) {
  ScheduleBuilder builder(0, c.count);
  const int place = Modulo(c.rank - c.root, c.size);
  const size_t pieces = NumPieces(c, c.count);
  for (size_t piece = 0; piece < pieces; ++piece) {
    const Range part = Part(c.count, pieces, piece);
    const Slice slice{Buffer::kOutput, part.begin, part.count};
    const uint32_t tag = static_cast<uint32_t>(piece);
    StepId came = kNoStep;
    if (place > 0) came = builder.Recv(Modulo(c.rank - 1, c.size), tag, slice);
    if (place + 1 < c.size) builder.Send(Modulo(c.rank + 1, c.size), tag, slice, {came});
  }
  return std::move(builder).Build();
}

}  // namespace cohort::comm::algorithms
