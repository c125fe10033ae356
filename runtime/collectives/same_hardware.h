// How many processes have one device between them.
#pragma once

#include "absl/status/statusor.h"
#include "comm/communicator.h"
#include "runtime/device/device.h"

namespace cohort::runtime {

// Ranks of this rank's host, itself among them, whose devices are the same hardware as `device`: of one name, where a
// device says no more (connected_device.h). Collective; nothing is
// sent where its memory is the host's, which all ranks of a host share.
absl::StatusOr<int> RanksOfSameHardware(Device& device, comm::Communicator& ranks);

}  // namespace cohort::runtime
