#include <algorithm>

#include "comm/check.h"
#include "runtime/device/cuda/open_cuda_device.h"
#include "tests/runtime/ops/compare.h"
#include "tests/runtime/ops/cuda/emulated_device.h"
#include "tests/support/cuda_or_skip.h"

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

// One line where there is nothing to run the cases of CUDA on.
TEST(OperationsOnCudaTest, RunOnADeviceHere) {
  COHORT_CUDA_OR_SKIP(device);
  const std::vector<TestedDevice> devices = TestedDevices();
  EXPECT_TRUE(std::any_of(devices.begin(), devices.end(),
                          [&](const TestedDevice& tested) { return &tested.open() == &device; }));
}

}  // namespace
}  // namespace cohort::runtime
