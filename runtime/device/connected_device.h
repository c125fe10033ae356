// A device that reaches those of other processes without the host, as GPUs do.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "comm/communicator.h"

namespace cohort::runtime {

// What a Device with memory of its own is besides, where it has links of its own. Only runtime/collectives asks, and for
// nothing that it could not do by way of the host.
class ConnectedDevice {
 public:
  virtual ~ConnectedDevice() = default;
  // Which part of the machine it is: processes of one host whose devices say the same have that one between them.
  virtual std::string hardware() const = 0;
  // A communicator whose buffers are memory of this device and whose operations run in its queue, for the ranks of `host`:
  // it is made over that, and goes on to use it. Collective. An error says, in words, why there is none, perhaps on this rank
  // alone.
  virtual absl::StatusOr<std::unique_ptr<comm::Communicator>> ConnectDirectly(
      std::shared_ptr<comm::Communicator> host) = 0;
};

}  // namespace cohort::runtime
