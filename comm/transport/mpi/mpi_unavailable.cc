// What a build without MPI has in its place.
#ifndef COHORT_HAVE_MPI

#include "comm/rendezvous.h"
#include "comm/transport/mpi/mpi_transport.h"

namespace cohort::comm {
namespace mpi {

std::string MpiTransport::Address() { return ""; }

absl::StatusOr<std::unique_ptr<Transport>> MpiTransport::Create(int, const std::vector<std::string>&,
                                                                TransportEvents*) {
  return absl::UnimplementedError("Cohort was built without MPI");
}

}  // namespace mpi

absl::StatusOr<std::shared_ptr<Rendezvous>> MpiRendezvous() {
  return absl::UnimplementedError("Cohort was built without MPI: install it and configure again");
}

}  // namespace cohort::comm

#endif  // COHORT_HAVE_MPI
