// The ranks of this job, and how the process behaves as one of them.
#pragma once

#include <atomic>
#include <memory>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "comm/communicator.h"

namespace cohort::tools {

// All ranks that mpirun started together; a group of one in a process that it did not start.
absl::StatusOr<std::shared_ptr<comm::Communicator>> JoinWorld(absl::Duration timeout);

// Processor cores of this host.
int HostCores();

// Ranks of the world on this host.
int RanksOnHost(const comm::Communicator& world);

// True once SIGINT or SIGTERM came; a second one ends the process. The first call, which must come before any thread
// is started, blocks both signals in the process and leaves them to one thread that waits for them: no computing
// thread is ever interrupted (oneDNN's generated f32 kernels use the stack pointer for other things while they run,
// and a signal frame written there destroys the heap).
const std::atomic<bool>* StopRequested();

}  // namespace cohort::tools
