#include "runtime/device/cuda/open_cuda_device.h"

#include <cuda_runtime_api.h>

#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "comm/check.h"
#include "runtime/device/cuda/cuda_device.h"
#include "runtime/device/cuda/cuda_status.h"
#include "runtime/device/cuda/memory_limit.h"

namespace cohort::runtime {
namespace {

// How many, or why none can be used.
absl::StatusOr<int> Count() {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess) {
    const absl::Status status = CudaStatus(error, "cudaGetDeviceCount");
    return absl::Status(absl::StatusCode::kUnavailable, absl::StrCat("no CUDA device: ", status.message()));
  }
  if (count == 0) {
    return absl::UnavailableError(
        "no CUDA device: this process may use none; CUDA_VISIBLE_DEVICES lists those that it may");
  }
  return count;
}

absl::StatusOr<std::unique_ptr<CudaDevice>> Open(int ordinal) {
  COHORT_ASSIGN_OR_RETURN(const int count, Count());
  if (ordinal < 0 || ordinal >= count) {
    return absl::UnavailableError(
        absl::StrCat("no CUDA device: number ", ordinal, " of ", count,
                     ", which count from 0; CUDA_VISIBLE_DEVICES lists those of this process"));
  }
  COHORT_RETURN_IF_ERROR(CudaStatus(cudaSetDevice(ordinal), "cudaSetDevice", absl::StrCat("cuda:", ordinal)));
  size_t free = 0, total = 0;
  COHORT_RETURN_IF_ERROR(
      CudaStatus(cudaMemGetInfo(&free, &total), "cudaMemGetInfo", absl::StrCat("cuda:", ordinal)));
  COHORT_ASSIGN_OR_RETURN(const size_t limit, MemoryLimit(free, std::getenv("COHORT_CUDA_MEMORY_GB")));
  return CudaDevice::Create(ordinal, limit);
}

}  // namespace

int CudaDeviceCount() {
  const absl::StatusOr<int> count = Count();
  return count.ok() ? *count : 0;
}

std::string CudaHardware(int ordinal) {
  char bus[32] = "";
  CheckCuda(cudaDeviceGetPCIBusId(bus, sizeof(bus), ordinal), "cudaDeviceGetPCIBusId");
  return absl::StrCat("cuda ", bus);
}

absl::StatusOr<Device*> OpenCudaDevice(int ordinal) {
  // Never destroyed: tensors in static storage may be freed after everything else.
  static auto& mutex = *new std::mutex;
  static auto& devices = *new std::map<int, std::unique_ptr<CudaDevice>>;
  const std::lock_guard<std::mutex> lock(mutex);
  std::unique_ptr<CudaDevice>& device = devices[ordinal];
  if (device == nullptr) {
    COHORT_ASSIGN_OR_RETURN(device, Open(ordinal));
  }
  return device.get();
}

}  // namespace cohort::runtime
