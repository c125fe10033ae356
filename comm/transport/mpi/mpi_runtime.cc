#ifdef COHORT_HAVE_MPI

#include "comm/transport/mpi/mpi_runtime.h"

#include <unistd.h>

#include <atomic>
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "comm/doorbell.h"

namespace cohort::comm::mpi {
namespace {

std::atomic<Runtime*> started{nullptr};

void FinalizeAtExit() {
  int finalized = 0;
  MPI_Finalized(&finalized);
  if (!finalized) MPI_Finalize();
}

}  // namespace

Runtime* Started() { return started.load(std::memory_order_acquire); }

absl::StatusOr<Runtime*> Start() {
  static std::mutex starting;
  const std::lock_guard lock(starting);
  if (Runtime* runtime = Started(); runtime != nullptr) return runtime;

  int initialized = 0;
  int level = MPI_THREAD_SINGLE;
  MPI_Initialized(&initialized);
  if (initialized) {
    MPI_Query_thread(&level);
  } else {
    if (MPI_Init_thread(nullptr, nullptr, MPI_THREAD_MULTIPLE, &level) != MPI_SUCCESS) {
      return absl::UnavailableError("MPI_Init_thread failed");
    }
    std::atexit(FinalizeAtExit);
  }
  if (level < MPI_THREAD_SERIALIZED) {
    return absl::FailedPreconditionError(
        "MPI was initialized without threads: Cohort needs MPI_THREAD_SERIALIZED or MPI_THREAD_MULTIPLE");
  }
  // Never freed: communicators may outlive every owner that could.
  auto* runtime = new Runtime;
  MPI_Comm_dup(MPI_COMM_WORLD, &runtime->data);
  MPI_Comm_dup(MPI_COMM_WORLD, &runtime->board);
  MPI_Comm_rank(runtime->data, &runtime->rank);
  MPI_Comm_size(runtime->data, &runtime->size);
  int64_t name[2] = {getpid(), NowNanos()};
  MPI_Bcast(name, 2, MPI_INT64_T, 0, runtime->data);
  runtime->job = absl::StrCat(name[0], "-", name[1]);
  started.store(runtime, std::memory_order_release);
  return runtime;
}

}  // namespace cohort::comm::mpi

#endif  // COHORT_HAVE_MPI
