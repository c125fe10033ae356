// How every operation of cohort_comm.h is started.
#pragma once

#include "comm/c/handles.h"

namespace cohort::comm::c {

// Starts an operation with `start(communicator)`, which returns a Work; then waits, or hands out the handle.
template <typename Start>
cohort_status Operate(cohort_comm* comm, cohort_dtype dtype, cohort_work** work, Start start) {
  return Starting(dtype, work, [&]() -> Work {
    if (comm == nullptr) return Work(NullArgument("the communicator"));
    return start(*comm->communicator);
  });
}

}  // namespace cohort::comm::c
