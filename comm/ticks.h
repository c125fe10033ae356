// Time stamps that every operation can afford: the processor's counter, a third of the price of asking for the time.
#pragma once

#include <cstdint>

namespace cohort::comm {

namespace ticks_internal {
// Whether the processor counts at one rate, asleep or not, so that its counter tells the time.
extern const bool counter_is_steady;
int64_t SteadyNanos();
}  // namespace ticks_internal

// Of this process only: other processes' ticks may run at another rate. Never negative, never 0.
inline int64_t NowTicks() {
#ifdef __x86_64__
  if (ticks_internal::counter_is_steady) return static_cast<int64_t>(__builtin_ia32_rdtsc());
#endif
  return ticks_internal::SteadyNanos();
}

// The moment of `ticks` in NowNanos (doorbell.h). The rate is measured between this process's start and now, so
// moments long past are exact to parts in a million.
int64_t NanosOfTicks(int64_t ticks);

}  // namespace cohort::comm
