// Reads of a CUDA device in a stream of their own, through pinned memory of their own (runtime/device/host_reader.h).
#pragma once

#include <cuda_runtime_api.h>

#include <condition_variable>
#include <cstddef>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/device/cuda/cuda_device.h"
#include "runtime/device/cuda/cuda_event.h"
#include "runtime/device/host_reader.h"

namespace cohort::runtime {

class CudaHostReader final : public HostReader {
 public:
  static absl::StatusOr<std::unique_ptr<CudaHostReader>> Create(CudaDevice& device, size_t most_bytes);
  ~CudaHostReader() override;

  void Mark() override;
  void Read(const void* from, size_t bytes, const std::function<void(const void*)>& take) override;

 private:
  // Of one read at a time.
  struct Buffer {
    void* memory = nullptr;
    CudaEvent arrived;
  };

  CudaHostReader(CudaDevice& device, size_t most_bytes) : device_(device), most_bytes_(most_bytes) {}
  absl::Status Open();

  CudaDevice& device_;
  const size_t most_bytes_;
  cudaStream_t stream_ = nullptr;
  CudaEvent mark_;
  std::mutex mutex_;
  std::condition_variable returned_;
  std::vector<std::unique_ptr<Buffer>> free_;
};

}  // namespace cohort::runtime
