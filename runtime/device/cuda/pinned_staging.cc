#include "runtime/device/cuda/pinned_staging.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "comm/check.h"
#include "runtime/device/cuda/cuda_status.h"

namespace cohort::runtime {

PinnedStaging::~PinnedStaging() {
  for (const auto& buffer : buffers_) {
    buffer->free.Wait();
    cudaFreeHost(buffer->memory);
  }
}

absl::Status PinnedStaging::Open(size_t buffers, size_t bytes) {
  bytes_ = bytes;
  for (size_t i = 0; i < buffers; ++i) {
    auto buffer = std::make_unique<Buffer>();
    COHORT_RETURN_IF_ERROR(CudaStatus(cudaHostAlloc(&buffer->memory, bytes, cudaHostAllocDefault),
                                      "cudaHostAlloc", absl::StrCat(bytes, " bytes of pinned host memory")));
    buffers_.push_back(std::move(buffer));
  }
  return absl::OkStatus();
}

PinnedStaging::Buffer& PinnedStaging::Next() { return *buffers_[next_++ % buffers_.size()]; }

absl::Status PinnedStaging::CopyIn(cudaStream_t queue, const void* from, void* to, size_t bytes) {
  const std::lock_guard<std::mutex> lock(mutex_);
  for (size_t done = 0; done < bytes; done += bytes_) {
    const size_t part = std::min(bytes_, bytes - done);
    Buffer& buffer = Next();
    buffer.free.Wait();
    std::memcpy(buffer.memory, static_cast<const char*>(from) + done, part);
    COHORT_RETURN_IF_ERROR(CudaStatus(
        cudaMemcpyAsync(static_cast<char*>(to) + done, buffer.memory, part, cudaMemcpyHostToDevice, queue),
        "cudaMemcpyAsync", "host to device"));
    buffer.free.Record(queue);
  }
  return absl::OkStatus();
}

absl::Status PinnedStaging::CopyOut(cudaStream_t queue, const void* from, void* to, size_t bytes) {
  const std::lock_guard<std::mutex> lock(mutex_);
  // A part is on its way while the one before is copied out of its buffer.
  Buffer* filling = nullptr;
  size_t begin = 0;
  for (size_t done = 0; done < bytes || filling != nullptr;) {
    Buffer* const arriving = filling;
    const size_t arriving_at = begin, arriving_end = done;
    filling = nullptr;
    if (done < bytes) {
      const size_t part = std::min(bytes_, bytes - done);
      filling = &Next();
      filling->free.Wait();
      COHORT_RETURN_IF_ERROR(
          CudaStatus(cudaMemcpyAsync(filling->memory, static_cast<const char*>(from) + done, part,
                                     cudaMemcpyDeviceToHost, queue),
                     "cudaMemcpyAsync", "device to host"));
      filling->free.Record(queue);
      begin = done;
      done += part;
    }
    if (arriving != nullptr) {
      arriving->free.Wait();
      std::memcpy(static_cast<char*>(to) + arriving_at, arriving->memory, arriving_end - arriving_at);
    }
  }
  return absl::OkStatus();
}

}  // namespace cohort::runtime
