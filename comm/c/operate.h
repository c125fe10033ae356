// How every operation of cohort_comm.h is started.
#pragma once

#include <memory>

#include "absl/strings/str_cat.h"
#include "comm/c/handles.h"

namespace cohort::comm::c {

// Starts an operation with `start(communicator)`, which returns a Work; then waits, or hands out the handle.
template <typename Start>
cohort_status Operate(cohort_comm* comm, cohort_dtype dtype, cohort_work** work, Start start) {
  if (work != nullptr) *work = nullptr;
  return Guard([&]() -> absl::Status {
    if (comm == nullptr) return NullArgument("the communicator");
    if (dtype < 0 || dtype >= COHORT_NUM_DTYPES) {
      return absl::InvalidArgumentError(absl::StrCat(static_cast<int>(dtype), " is not a cohort_dtype"));
    }
    if (work == nullptr) return start(*comm->communicator).Wait();
    // The handle before the operation: what is in flight must not be lost for lack of memory.
    auto handle = std::make_unique<cohort_work>();
    handle->work = start(*comm->communicator);
    *work = handle.release();
    return absl::OkStatus();
  });
}

}  // namespace cohort::comm::c
