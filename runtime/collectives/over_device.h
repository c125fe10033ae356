// The communicator of a group for what lies in the memory of a device.
#pragma once

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "comm/communicator.h"
#include "runtime/device/device.h"

namespace cohort::runtime {

class StagedCommunicator;

// `host` itself where the device's memory is the host's. Otherwise the same group over addresses of the device, as
// staged_communicator.h says, which uses `host`; what lies on the host (counts, losses) stays with `host`. It may be used
// beside it, in one order on all ranks. The device outlives it.
//
// Collective over `host`: where the device has a communicator of its own, all ranks get it, or none and a line in the log
// with the reason.
absl::StatusOr<std::shared_ptr<comm::Communicator>> OverDevice(Device& device,
                                                               std::shared_ptr<comm::Communicator> host);

// Communicators that are made while ranks use others of the same devices: theirs come by way of the host until Connect. For
// of devices, NCCL demands one order of all that is made and started on them, and between two threads there is none.
class LaterLinks {
 public:
  // While it lives, what OverDevice makes in this thread is one of `links`.
  class Scope {
   public:
    explicit Scope(LaterLinks& links);
    ~Scope();
    Scope(const Scope&) = delete;
  };

  // Collective over all of them, one after another, in the order in which they were made; nothing is in flight in any.
  // From then on they are what OverDevice would have made.
  absl::Status Connect();

 private:
  friend absl::StatusOr<std::shared_ptr<comm::Communicator>> OverDevice(
      Device& device, std::shared_ptr<comm::Communicator> host);
  struct Link {
    Device* device;
    std::shared_ptr<comm::Communicator> host;
    std::weak_ptr<StagedCommunicator> over;
  };
  std::vector<Link> links_;
};

// The same by way of the host alone, for groups of messages. Not collective.
std::shared_ptr<comm::Communicator> ThroughHost(Device& device, std::shared_ptr<comm::Communicator> host);

}  // namespace cohort::runtime
