// What of its host's memory a rank may count on.
#pragma once

#include "absl/status/statusor.h"
#include "comm/communicator.h"
#include "runtime/device/device.h"

namespace cohort::parallel {

// Collective. The device's free memory divided by the ranks of a host that have that device, of the rank that has the
// least: every rank measures before any of them allocates, and all get the same answer. Bytes.
absl::StatusOr<int64_t> ShareOfFreeMemory(runtime::Device& device, comm::Communicator& world);

}  // namespace cohort::parallel
