#include "comm/ticks.h"

#ifdef __x86_64__
#include <cpuid.h>
#endif

#include "comm/doorbell.h"

namespace cohort::comm {
namespace ticks_internal {
namespace {

bool CounterIsSteady() {
#ifdef __x86_64__
  // The invariant counter (AMD64 Architecture Programmer's Manual, CPUID Fn8000_0007; Intel has the same bit).
  unsigned int eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid(0x80000007, &eax, &ebx, &ecx, &edx) != 0 && (edx & (1u << 8)) != 0;
#else
  return false;
#endif
}

}  // namespace

const bool counter_is_steady = CounterIsSteady();

int64_t SteadyNanos() { return NowNanos(); }

}  // namespace ticks_internal

namespace {

struct Moment {
  int64_t ticks, nanos;
};

// Both at one time, also where the thread loses its processor in between: of a few looks the one that took least.
Moment Now() {
  constexpr int kLooks = 4;
  constexpr int64_t kAtOnce = 4000;  // ticks, about a microsecond
  Moment best = {};
  int64_t least = INT64_MAX;
  for (int look = 0; look < kLooks && least > kAtOnce; ++look) {
    const int64_t before = NowTicks(), nanos = NowNanos(), took = NowTicks() - before;
    if (took >= least) continue;
    least = took;
    best = {before + took / 2, nanos};
  }
  return best;
}

const Moment process_start = Now();

}  // namespace

int64_t NanosOfTicks(int64_t ticks) {
  if (!ticks_internal::counter_is_steady) return ticks;
  const Moment now = Now();
  const double rate = now.ticks == process_start.ticks
                          ? 1.0
                          : static_cast<double>(now.nanos - process_start.nanos) /
                                static_cast<double>(now.ticks - process_start.ticks);
  return now.nanos - static_cast<int64_t>(static_cast<double>(now.ticks - ticks) * rate);
}

}  // namespace cohort::comm
