// Recursive-doubling all-reduce (Thakur, Rabenseifner and Gropp, 2005, section 4.1): partners at distance 1,
// 2, 4, … exchange everything they have. Where the number of ranks is no power of two, the first ones fold in
// pairs before and hear the result after. Both partners compute the same sum of two numbers, so all ranks
// hold the same bits.
#include <bit>

#include "comm/algorithms/algorithm.h"

namespace cohort::comm::algorithms {

Schedule RecursiveDoublingAllReduce(const Collective& c) {
  ScheduleBuilder builder(c.in_place ? 0 : c.count, c.count);
  const Slice input = Input(c, 0, c.count);
  const Slice output{Buffer::kOutput, 0, c.count};
  if (c.size == 1) {
    builder.Copy(input, output);
    return std::move(builder).Build();
  }
  const int core = static_cast<int>(std::bit_floor(static_cast<unsigned>(c.size)));
  const int folded = c.size - core;  // that many pairs at the start
  const int rounds = std::countr_zero(static_cast<unsigned>(core));
  const uint32_t result_tag = rounds + 1;
  const bool in_pair = c.rank < 2 * folded;
  if (in_pair && c.rank % 2 == 0) {
    const StepId sent = builder.Send(c.rank + 1, 0, input);
    builder.Recv(c.rank + 1, result_tag, output, {c.in_place ? sent : kNoStep});
    return std::move(builder).Build();
  }
  const int place = in_pair ? c.rank / 2 : c.rank - folded;
  const auto rank_at = [&](int other) { return other < folded ? 2 * other + 1 : other + folded; };

  // The sum so far is never changed in place: a partner may still be reading it. It moves from the input
  // through two scratch buffers in turn, and the last addition puts it into the output.
  const int additions = rounds + (in_pair ? 1 : 0);
  const bool last_aliases =
      c.in_place && additions == 1;  // then the last addition is sent from the output, too
  const Slice scratch[2] = {additions > 1 || last_aliases ? builder.Scratch(c.count) : Slice{},
                            additions > 2 ? builder.Scratch(c.count) : Slice{}};
  Slice sum = input;
  StepId summed = kNoStep;
  std::vector<StepId> sends;
  int done = 0;
  const auto next = [&] {
    const bool last = done + 1 == additions && !last_aliases;
    return last ? output : scratch[done % 2];
  };
  if (in_pair) {
    const Slice to = next();
    summed = builder.RecvReduce(c.rank - 1, 0, sum, to);
    sum = to;
    ++done;
  }
  for (int round = 0; round < rounds; ++round) {
    const int partner = rank_at(place ^ (1 << round));
    const Slice to = next();
    const uint32_t tag = 1 + round;
    std::vector<StepId> free = sends;  // whatever lay where this sum goes has been sent
    free.push_back(summed);
    sends.push_back(builder.Send(partner, tag, sum, {summed}));
    summed = builder.RecvReduce(partner, tag, sum, to, free);
    sum = to;
    ++done;
  }
  if (last_aliases) {
    sends.push_back(summed);
    summed = builder.Copy(sum, output, sends);
  }
  if (in_pair) builder.Send(c.rank - 1, result_tag, output, {summed});
  return std::move(builder).Build();
}

}  // namespace cohort::comm::algorithms
