// Dissemination barrier (Hensgen, Finkel and Manber, 1988): in round k signal rank + 2^k and hear rank - 2^k.
#include "comm/algorithms/algorithm.h"

namespace cohort::comm::algorithms {

Schedule DisseminationBarrier(const Collective& c) {
  ScheduleBuilder builder(0, 0);
  StepId heard = kNoStep;
  uint32_t round = 0;
  for (int distance = 1; distance < c.size; distance *= 2, ++round) {
    builder.Signal(Modulo(c.rank + distance, c.size), round, {heard});
    heard = builder.Await(Modulo(c.rank - distance, c.size), round, {heard});
  }
  return std::move(builder).Build();
}

}  // namespace cohort::comm::algorithms
