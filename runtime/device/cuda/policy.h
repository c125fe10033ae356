// The limits of CUDA devices, in one place.
#pragma once

#include <cstddef>

#include "absl/time/time.h"

namespace cohort::runtime::cuda_policy {

// Of the memory that is free when a device is opened, what this process takes at most, unless COHORT_CUDA_MEMORY_GB says
// otherwise: the rest is for CUDA's own (contexts, modules, NCCL's buffers).
inline constexpr double kMemoryShare = 0.92;
// The pool keeps freed memory for later up to the limit: a step allocates what the last one did, and giving back to the
// driver costs milliseconds. A process that wants to leave some to others states a lower limit.
// Blocks are rounded up to this, which is more than a vector load or a tensor map of Hopper (16 bytes) asks for.
inline constexpr size_t kAlignment = 256;
// Copies go through two buffers of this size: large enough that starting a copy (some microseconds) is small beside
// moving it (4 MB at 25 to 50 GB/s: 80 to 160 microseconds), small enough that one that is smaller than a buffer has
// little to wait for.
inline constexpr size_t kStagingBuffers = 2;
inline constexpr size_t kStagingBytes = size_t{4} << 20;
// One is filled while what is in the other is taken away (CudaHostReader), by two threads.
inline constexpr size_t kReaderBuffers = 2;
// The host waits for a device spinning, as long as a small copy takes, then sleeping for this part of what it has
// waited, within the two limits, so that a step of decoding (a few milliseconds) is not found over much later than it
// is. And not for ever: no step of a model on one device takes so long.
inline constexpr absl::Duration kSpin = absl::Microseconds(100);
inline constexpr int kPausePart = 100;
inline constexpr absl::Duration kLeastPause = absl::Microseconds(5), kMostPause = absl::Microseconds(200);
inline constexpr absl::Duration kDeadline = absl::Minutes(10);
// What NVIDIA's documentation of cuBLAS recommends for Hopper.
inline constexpr size_t kBlasWorkspaceBytes = size_t{32} << 20;
// Processors older than this have no bf16.
inline constexpr int kLeastComputeCapability = 80;

}  // namespace cohort::runtime::cuda_policy
