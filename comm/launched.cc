#include <cstdlib>

#include "comm/rendezvous.h"

namespace cohort::comm {
namespace {

// The process's rank, from Open MPI; from MPICH and other Hydra or PMI-1/2 launchers; from PMIx (srun
// --mpi=pmix, prun). Null in a process that none of them started.
const char* RankVariable() {
  for (const char* name : {"OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK"}) {
    if (const char* value = std::getenv(name); value != nullptr) return value;
  }
  return nullptr;
}

}  // namespace

bool LaunchedByMpi() { return RankVariable() != nullptr; }

int LaunchedRank() {
  const char* rank = RankVariable();
  return rank == nullptr ? 0 : std::atoi(rank);
}

}  // namespace cohort::comm
