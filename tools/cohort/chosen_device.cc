#include "tools/cohort/chosen_device.h"

#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "runtime/device/cuda/open_cuda_device.h"

namespace cohort::tools {

void AddDeviceFlag(CLI::App& app, std::string& name) {
  app.add_option("--device", name, "Where the model computes: cpu, or cuda (a GPU of NVIDIA's)")
      ->check(CLI::IsMember({"cpu", "cuda"}))
      ->capture_default_str();
}

namespace {

absl::StatusOr<runtime::Device*> DeviceAt(const std::string& name, int place) {
  if (name == "cpu") return &runtime::CpuDevice();
  if (name != "cuda") {
    return absl::InvalidArgumentError(absl::StrCat("device is '", name, "'; it must be cpu or cuda"));
  }
  return runtime::OpenCudaDevice(place % std::max(runtime::CudaDeviceCount(), 1));
}

}  // namespace

absl::StatusOr<runtime::Device*> ChosenDevice(const std::string& name) { return DeviceAt(name, 0); }

absl::StatusOr<runtime::Device*> DeviceOfRank(const std::string& name, const comm::Communicator& world) {
  return DeviceAt(name, world.topology().local_rank());
}

}  // namespace cohort::tools
