// The library of NCCL, which is loaded by the first who asks.
#pragma once

#include "absl/status/status.h"

namespace cohort::comm::nccl {

// UNAVAILABLE where it is not found, with what to do.
absl::Status LoadNccl();

}  // namespace cohort::comm::nccl
