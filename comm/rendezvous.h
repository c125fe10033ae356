// How ranks find each other before they can communicate.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace cohort::comm {

// A small key-value board that all ranks of one job see. Implementations: MPI (a job under mpirun), a folder
// on a shared file system, and whatever an embedder brings. Keys are written once. Not for bulk data.
class Rendezvous {
 public:
  virtual ~Rendezvous() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  virtual absl::Status Put(const std::string& key, const std::string& value) = 0;
  // Waits for the key; DEADLINE_EXCEEDED names it.
  virtual absl::StatusOr<std::string> Get(const std::string& key, absl::Time deadline) = 0;
};

// Ranks meet in `folder`, which must be empty or absent at the start of the job and visible to all.
std::shared_ptr<Rendezvous> FileRendezvous(const std::string& folder, int rank, int size);

// The job that mpirun started this process in: calls MPI_Init where it was not called and leaves MPI_Finalize
// to process exit. UNIMPLEMENTED where Cohort was built without MPI.
absl::StatusOr<std::shared_ptr<Rendezvous>> MpiRendezvous();

// True in a process that mpirun (or srun with PMIx) started.
bool LaunchedByMpi();
// This process's rank as that launcher says it, known before MpiRendezvous; 0 without a launcher.
int LaunchedRank();

}  // namespace cohort::comm
