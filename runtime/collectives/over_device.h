// The communicator of a group for what lies in the memory of a device.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "comm/communicator.h"
#include "runtime/device/device.h"

namespace cohort::runtime {

// `host` itself where the device's memory is the host's. Otherwise the same group over addresses of the device, as
// staged_communicator.h says, which uses `host`; what lies on the host (counts, losses) stays with `host`. It may be used
// beside it, in one order on all ranks. The device outlives it.
//
// Collective over `host`: where the device has a communicator of its own, all ranks get it, or none and a line in the log
// with the reason.
absl::StatusOr<std::shared_ptr<comm::Communicator>> OverDevice(Device& device,
                                                               std::shared_ptr<comm::Communicator> host);

// The same by way of the host alone, for groups of messages. Not collective.
std::shared_ptr<comm::Communicator> ThroughHost(Device& device, std::shared_ptr<comm::Communicator> host);

}  // namespace cohort::runtime
