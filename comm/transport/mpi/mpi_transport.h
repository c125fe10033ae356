// The MPI transport: the portable fallback between hosts.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "comm/transport/transport.h"

namespace cohort::comm::mpi {

class MpiTransport {
 public:
  // What peers must know: empty where MPI does not run in this process, or Cohort was built without it.
  static std::string Address();
  // addresses[r] is that of rank r; empty ones are not reached.
  static absl::StatusOr<std::unique_ptr<Transport>> Create(int rank,
                                                           const std::vector<std::string>& addresses,
                                                           TransportEvents* events);
};

}  // namespace cohort::comm::mpi
