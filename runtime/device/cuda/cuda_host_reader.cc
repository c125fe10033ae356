#include "runtime/device/cuda/cuda_host_reader.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "comm/check.h"
#include "runtime/device/cuda/cuda_status.h"
#include "runtime/device/cuda/policy.h"

namespace cohort::runtime {

absl::StatusOr<std::unique_ptr<CudaHostReader>> CudaHostReader::Create(CudaDevice& device,
                                                                       size_t most_bytes) {
  device.MakeCurrent();  // events are of the current device
  std::unique_ptr<CudaHostReader> reader(new CudaHostReader(device, most_bytes));
  COHORT_RETURN_IF_ERROR(reader->Open());
  return reader;
}

absl::Status CudaHostReader::Open() {
  COHORT_RETURN_IF_ERROR(CudaStatus(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking),
                                    "cudaStreamCreateWithFlags", device_.name()));
  for (size_t i = 0; i < cuda_policy::kReaderBuffers; ++i) {
    auto buffer = std::make_unique<Buffer>();
    COHORT_RETURN_IF_ERROR(CudaStatus(cudaHostAlloc(&buffer->memory, most_bytes_, cudaHostAllocDefault),
                                      "cudaHostAlloc",
                                      absl::StrCat(most_bytes_, " bytes of pinned host memory")));
    free_.push_back(std::move(buffer));
  }
  return absl::OkStatus();
}

// Nobody reads any more, so all buffers are here and the stream is empty.
CudaHostReader::~CudaHostReader() {
  device_.MakeCurrent();
  for (const auto& buffer : free_) cudaFreeHost(buffer->memory);
  if (stream_ != nullptr) cudaStreamDestroy(stream_);
}

void CudaHostReader::Mark() {
  device_.MakeCurrent();
  mark_.Record(device_.stream());
  mark_.MakeWait(stream_);
}

void CudaHostReader::Read(const void* from, size_t bytes, const std::function<void(const void*)>& take) {
  COHORT_CHECK(bytes <= most_bytes_, "a read of %zu bytes, of at most %zu", bytes, most_bytes_);
  device_.MakeCurrent();
  std::unique_ptr<Buffer> buffer;
  {
    std::unique_lock<std::mutex> lock(mutex_);
    returned_.wait(lock, [this] { return !free_.empty(); });  // a copy and a take: both end
    buffer = std::move(free_.back());
    free_.pop_back();
  }
  CheckCuda(cudaMemcpyAsync(buffer->memory, from, bytes, cudaMemcpyDeviceToHost, stream_), "cudaMemcpyAsync");
  buffer->arrived.Record(stream_);
  buffer->arrived.Wait();
  take(buffer->memory);
  const std::lock_guard<std::mutex> lock(mutex_);
  free_.push_back(std::move(buffer));
  returned_.notify_one();
}

absl::StatusOr<std::unique_ptr<HostReader>> CudaDevice::MakeHostReader(size_t most_bytes) {
  return CudaHostReader::Create(*this, most_bytes);
}

}  // namespace cohort::runtime
