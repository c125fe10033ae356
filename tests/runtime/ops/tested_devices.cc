#include "comm/check.h"
#include "runtime/device/cuda/open_cuda_device.h"
#include "tests/runtime/ops/compare.h"
#include "tests/runtime/ops/cuda/emulated_device.h"

namespace cohort::runtime {
namespace {

Device& FirstCudaDevice() {
  const absl::StatusOr<Device*> device = OpenCudaDevice(0);
  COHORT_CHECK(device.ok(), "%s", device.status().ToString().c_str());
  return **device;
}

}  // namespace

std::vector<TestedDevice> TestedDevices() {
  std::vector<TestedDevice> devices = {{"cpu", CpuDevice}};
#if defined(__x86_64__) && !defined(__SANITIZE_THREAD__)  // emulator.cc switches stacks
  devices.push_back({"emulated_a100", EmulatedA100, true});
  devices.push_back({"emulated_h200", EmulatedH200, true});
#endif
  if (CudaDeviceCount() > 0) devices.push_back({"cuda", FirstCudaDevice});
  return devices;
}

namespace {

// One line where there is nothing to run the CUDA cases on.
TEST(CudaDeviceTest, OperationsRunOnADeviceHere) {
  if (CudaDeviceCount() == 0) {
    GTEST_SKIP() << "no CUDA device: its kernels are compiled and run on the CPU, never on what they are for";
  }
  EXPECT_EQ(FirstCudaDevice().kind(), DeviceKind::kCuda);
}

}  // namespace
}  // namespace cohort::runtime
