// How long a thread has waited for other ranks: what is left of a step is computing.
#pragma once

#include "runtime/metrics/chrome_trace.h"

namespace cohort::runtime {

// The calling thread's, since it began: what WaitScopes that are over have taken.
double WaitedSeconds();

// The time from its construction to its destruction is waiting, and an event of the trace (`name` must be a literal). Scopes
// may lie in one another: no time counts twice. Costs two looks at the clock.
class WaitScope {
 public:
  explicit WaitScope(const char* name);
  WaitScope(const WaitScope&) = delete;
  ~WaitScope();

 private:
  const TraceScope trace_;
  int64_t begin_ = -1;  // nanoseconds; -1: another one lies around it
};

}  // namespace cohort::runtime
