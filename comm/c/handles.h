// What the opaque handles of cohort_comm.h hold, and how every function of it is wrapped.
#pragma once

#include <exception>
#include <memory>
#include <new>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "comm/c/cohort_comm.h"
#include "comm/communicator.h"
#include "comm/work.h"

struct cohort_comm {
  std::unique_ptr<cohort::comm::Communicator> communicator;
};

struct cohort_work {
  cohort::comm::Work work;
};

namespace cohort::comm::c {

// The code of a status; a failure's text becomes this thread's cohort_last_message().
cohort_status Report(const absl::Status& status);

absl::Status NullArgument(const char* what);

// OK where a struct of the caller has the size that this version of the header says.
absl::Status CheckStructSize(const char* what, size_t given, size_t expected);

absl::StatusOr<CommunicatorOptions> ParseOptions(const cohort_comm_options* options);

// Runs the body of a C function: nothing is thrown across it.
template <typename Body>
cohort_status Guard(Body&& body) {
  try {
    return Report(body());
  } catch (const std::bad_alloc&) {
    return Report(absl::ResourceExhaustedError("out of memory"));
  } catch (const std::exception& error) {
    return Report(absl::InternalError(error.what()));
  } catch (...) {
    return Report(absl::InternalError("an unknown exception"));
  }
}

// Starts an operation on elements of `dtype` with `start()`, which returns a Work; then waits, or hands out the handle.
template <typename Start>
cohort_status Starting(cohort_dtype dtype, cohort_work** work, Start start) {
  if (work != nullptr) *work = nullptr;
  return Guard([&]() -> absl::Status {
    if (dtype < 0 || dtype >= COHORT_NUM_DTYPES) {
      return absl::InvalidArgumentError(absl::StrCat(static_cast<int>(dtype), " is not a cohort_dtype"));
    }
    if (work == nullptr) return start().Wait();
    // The handle before the operation: what is in flight must not be lost for lack of memory.
    auto handle = std::make_unique<cohort_work>();
    handle->work = start();
    *work = handle.release();
    return absl::OkStatus();
  });
}

inline DataType TypeOf(cohort_dtype dtype) { return static_cast<DataType>(dtype); }

// Runs `make`, which fills *comm, with *comm set to NULL first.
template <typename Make>
cohort_status Creating(cohort_comm** comm, Make make) {
  return Guard([&]() -> absl::Status {
    if (comm == nullptr) return NullArgument("where the communicator goes");
    *comm = nullptr;
    return make();
  });
}

}  // namespace cohort::comm::c
