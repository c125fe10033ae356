// Ring all-reduce: a reduce-scatter round the ring, then an all-gather (Patarasuk and Yuan,
// 2009). Every chunk is summed along one path and then copied, so all ranks hold the same bits.
// Pieces of a chunk travel independently.
#include "comm/algorithms/algorithm.h"

namespace cohort::comm::algorithms {

Schedule RingAllReduce(const Collective& c) {
  ScheduleBuilder builder(c.in_place ? 0 : c.count, c.count);
  if (c.size == 1) {
    builder.Copy(Input(c, 0, c.count), {Buffer::kOutput, 0, c.count});
    return std::move(builder).Build();
  }
  const int right = Modulo(c.rank + 1, c.size);
  const int left = Modulo(c.rank - 1, c.size);
  const int steps = c.size - 1;
  // All ranks cut every chunk alike: by the longest one.
  const size_t pieces = NumPieces(c, Part(c.count, c.size, 0).count);
  for (size_t piece = 0; piece < pieces; ++piece) {
    const auto range = [&](int chunk) {
      const Range whole = Part(c.count, c.size, Modulo(chunk, c.size));
      const Range part = Part(whole.count, pieces, piece);
      return Range{whole.begin + part.begin, part.count};
    };
    const auto tag = [&](int step) { return static_cast<uint32_t>(step * pieces + piece); };
    std::vector<StepId> sent(steps), reduced(steps);
    // Step s passes chunk rank-s on, and adds this rank's share to the chunk that comes.
    for (int s = 0; s < steps; ++s) {
      const Range out = range(c.rank - s);
      const Range in = range(c.rank - s - 1);
      const Slice from =
          s == 0 ? Input(c, out.begin, out.count) : Slice{Buffer::kOutput, out.begin, out.count};
      sent[s] = builder.Send(right, tag(s), from, {s == 0 ? kNoStep : reduced[s - 1]});
      reduced[s] = builder.RecvReduce(left, tag(s), Input(c, in.begin, in.count),
                                      {Buffer::kOutput, in.begin, in.count});
    }
    // Chunk rank+1 is complete here. What comes replaces partial sums that were sent in step s above.
    StepId complete = reduced[steps - 1];
    for (int s = 0; s < steps; ++s) {
      const Range out = range(c.rank + 1 - s);
      const Range in = range(c.rank - s);
      builder.Send(right, tag(steps + s), {Buffer::kOutput, out.begin, out.count}, {complete});
      const StepId free = s == 0 && !c.in_place ? kNoStep : sent[s];
      complete = builder.Recv(left, tag(steps + s), {Buffer::kOutput, in.begin, in.count}, {free});
    }
  }
  return std::move(builder).Build();
}

}  // namespace cohort::comm::algorithms
