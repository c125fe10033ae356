#ifdef COHORT_HAVE_MPI

#include "comm/transport/mpi/mpi_transport.h"

#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "comm/doorbell.h"
#include "comm/transport/mpi/mpi_link.h"
#include "comm/transport/mpi/mpi_runtime.h"

namespace cohort::comm::mpi {

std::string MpiTransport::Address() {
  const Runtime* runtime = Started();
  return runtime == nullptr ? "" : absl::StrCat(runtime->job, " ", runtime->rank);
}

absl::StatusOr<std::unique_ptr<Transport>> MpiTransport::Create(int rank,
                                                                const std::vector<std::string>& addresses,
                                                                TransportEvents* events) {
  Runtime* runtime = Started();
  if (runtime == nullptr) return absl::FailedPreconditionError("MPI does not run in this process");
  std::vector<int> mpi_ranks(addresses.size(), -1);
  for (size_t peer = 0; peer < addresses.size(); ++peer) {
    int number = -1;
    char job[64] = "";
    if (std::sscanf(addresses[peer].c_str(), "%63s %d", job, &number) != 2 || job != runtime->job) continue;
    mpi_ranks[peer] = number;
  }
  if (mpi_ranks[rank] != runtime->rank) return absl::InternalError("this rank is not the one that MPI knows");
  return std::unique_ptr<Transport>(new Link(*runtime, std::move(mpi_ranks), events));
}

}  // namespace cohort::comm::mpi

#endif  // COHORT_HAVE_MPI
