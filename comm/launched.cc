#include <cstdlib>

#include "comm/rendezvous.h"

namespace cohort::comm {

bool LaunchedByMpi() {
  // Open MPI; MPICH and other Hydra or PMI-1/2 launchers; PMIx (srun --mpi=pmix, prun).
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMI_RANK", "PMIX_RANK"}) {
    if (std::getenv(name) != nullptr) return true;
  }
  return false;
}

}  // namespace cohort::comm
