// Copies between the host and a device through pinned memory of our own: the host's bytes may lie anywhere, and the
// device moves them at the speed of the bus while the host fills or empties the next buffer.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <memory>
#include <mutex>
#include <vector>

#include "absl/status/status.h"
#include "runtime/device/cuda/cuda_event.h"

namespace cohort::runtime {

// A ring of buffers, taken in turn. Thread-safe: a copy holds it as a whole. The device is current where it is made
// and in each call.
class PinnedStaging {
 public:
  PinnedStaging() = default;
  ~PinnedStaging();
  PinnedStaging(const PinnedStaging&) = delete;
  PinnedStaging& operator=(const PinnedStaging&) = delete;

  // Pins `buffers` of `bytes` each.
  absl::Status Open(size_t buffers, size_t bytes);

  // Enqueued when it returns; `from` is free again.
  absl::Status CopyIn(cudaStream_t queue, const void* from, void* to, size_t bytes);
  // `to` holds the bytes when it returns.
  absl::Status CopyOut(cudaStream_t queue, const void* from, void* to, size_t bytes);

 private:
  struct Buffer {
    void* memory = nullptr;
    CudaEvent free;  // after the last copy out of or into it
  };
  Buffer& Next();

  std::mutex mutex_;
  size_t bytes_ = 0;
  size_t next_ = 0;
  std::vector<std::unique_ptr<Buffer>> buffers_;
};

}  // namespace cohort::runtime
