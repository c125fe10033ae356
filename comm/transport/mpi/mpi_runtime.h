// MPI in this process: started once, used under one lock, finalized at exit.
#pragma once

#ifdef COHORT_HAVE_MPI

#include <mpi.h>

#include <mutex>
#include <string>

#include "absl/status/statusor.h"

namespace cohort::comm::mpi {

struct Runtime {
  std::mutex mutex;  // every call of MPI is made under it: MPI_THREAD_SERIALIZED is enough
  MPI_Comm data;     // a duplicate of MPI_COMM_WORLD for the transport
  MPI_Comm board;    // and one for the rendezvous
  int rank = 0;
  int size = 1;
  std::string job;  // equal in the processes of one job only
};

// Starts MPI where it was not started. Collective over MPI_COMM_WORLD the first time.
absl::StatusOr<Runtime*> Start();

// The runtime where Start was called, else nullptr.
Runtime* Started();

}  // namespace cohort::comm::mpi

#endif  // COHORT_HAVE_MPI
