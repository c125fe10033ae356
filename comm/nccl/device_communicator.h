// Collectives on device memory: the front door of this folder.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>

#include "absl/status/statusor.h"
#include "comm/communicator.h"
#include "comm/nccl/nccl_api.h"
#include "comm/nccl/policy.h"
#include "comm/nccl/way.h"

namespace cohort::comm::nccl {

struct DeviceOptions {
  int device = 0;           // ordinal among those of this process; no two ranks of a host may use one device
  Stream stream = nullptr;  // cudaStream_t; must live as long as the communicator
  // The form of collectives where ranks are on several hosts; none: as priced. Equal on all ranks, as is the rest.
  std::optional<Way> way = std::nullopt;
  // What the two ways cost; none: measured when the communicator is made, and when the group has changed.
  std::optional<WayPrices> prices = std::nullopt;
  size_t piece_bytes = policy::kPieceBytes;  // between hosts; at least one element
};

// A Communicator whose buffers are device memory, and whose operations are enqueued in one stream: what is enqueued there
// afterwards finds their results, without anybody waiting. A call returns when NCCL has the operation, for which peers are
// waited for only where NCCL connects to them for the first time. Done and Wait look at an event behind the operation.
//
// As over host memory, but:
// - A Work that ends with an error ends the communicator, on all members: NCCL cannot take back one operation alone. What is
//   called afterwards ends with the same error, until the group is edited (Shrink, also where nobody is lost).
// - What is later in the stream runs also after an operation that failed, on whatever is in the buffers then: look at the
//   Work before results are used outside.
// - Messages (Send, Recv) occupy the stream until their other end is there, and match in the order of the calls: `tag` is
//   0. Those that wait for each other have to be in one group.
// - A rank that calls something else is found within some milliseconds, but not a difference of sizes of messages or in an
//   all-to-all-v, which NCCL does not see.
// - Sums are NCCL's, in its order.
// - Datatypes, codecs and tokens are UNIMPLEMENTED.
// Edits need nobody else to use this object, as those of the base.
class DeviceCommunicator : public Communicator {
 public:
  // Collective over `base`, which carries what NCCL needs to begin, watches the peers' life, and can be used on. Its timeout
  // is the operations'. `api`: OpenNccl(), and must outlive the communicator.
  static absl::StatusOr<std::unique_ptr<DeviceCommunicator>> Create(std::shared_ptr<Communicator> base,
                                                                    const DeviceOptions& options,
                                                                    NcclApi& api);

  // Sends and receives between the two are one operation: they move side by side, in any order. Each returns the group's
  // Work. No other operation may be called in between.
  virtual absl::Status BeginGroup() = 0;
  virtual Work EndGroup() = 0;

  // Collective: NCCL's communicators are made anew, for the members that the base has now. Needed after the base was edited
  // by itself; Shrink and Grow of this object do both.
  virtual absl::Status Renew() = 0;

  // How an operation of so many bytes (of the buffer, or of all parts) is made.
  virtual Way WayOf(Operation operation, size_t bytes) const = 0;
  virtual const std::shared_ptr<Communicator>& base() const = 0;
};

}  // namespace cohort::comm::nccl
