#include "runtime/metrics/waited.h"

#include <chrono>

namespace cohort::runtime {
namespace {

thread_local bool waits = false;
thread_local int64_t waited = 0;  // nanoseconds

int64_t SteadyNanos() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

}  // namespace

double WaitedSeconds() { return static_cast<double>(waited) * 1e-9; }

WaitScope::WaitScope(const char* name) : trace_(name) {
  if (waits) return;
  waits = true;
  begin_ = SteadyNanos();
}

WaitScope::~WaitScope() {
  if (begin_ < 0) return;
  waited += SteadyNanos() - begin_;
  waits = false;
}

}  // namespace cohort::runtime
