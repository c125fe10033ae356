// What a build without CUDA has in its place.
#include "absl/status/status.h"
#include "runtime/device/cuda/open_cuda_device.h"

namespace cohort::runtime {

int CudaDeviceCount() { return 0; }

std::string CudaHardware(int) { return ""; }

absl::StatusOr<Device*> OpenCudaDevice(int) {
  return absl::UnavailableError(
      "no CUDA device: Cohort was built without CUDA; install the CUDA toolkit (12 or newer), configure "
      "again with "
      "-DCOHORT_CUDA=ON, which says what is missing, and build");
}

}  // namespace cohort::runtime
