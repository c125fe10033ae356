// Binomial-tree broadcast. Works in the output: the root's holds the data.
#include <bit>

#include "comm/algorithms/algorithm.h"

namespace cohort::comm::algorithms {

Schedule BinomialBroadcast(const Collective& c) {
  ScheduleBuilder builder(0, c.count);
  const Slice all{Buffer::kOutput, 0, c.count};
  const int place = Modulo(c.rank - c.root, c.size);  // the root is 0; the parent lacks the lowest set bit
  StepId came = kNoStep;
  unsigned below = std::bit_ceil(static_cast<unsigned>(c.size));
  if (place != 0) {
    below = 1u << std::countr_zero(static_cast<unsigned>(place));
    came = builder.Recv(Modulo(c.root + place - static_cast<int>(below), c.size), 0, all);
  }
  for (unsigned bit = below / 2; bit > 0; bit /= 2) {  // the largest subtree first
    const int child = place + static_cast<int>(bit);
    if (child < c.size) builder.Send(Modulo(c.root + child, c.size), 0, all, {came});
  }
  return std::move(builder).Build();
}

}  // namespace cohort::comm::algorithms
