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

absl::StatusOr<runtime::Device*> ChosenDevice(const std::string& name, int ranks) {
  if (name == "cpu") return &runtime::CpuDevice();
  if (name != "cuda") {
    return absl::InvalidArgumentError(absl::StrCat("device is '", name, "'; it must be cpu or cuda"));
  }
  if (ranks > 1) {
    return absl::UnimplementedError(
        absl::StrCat("device is cuda in a job of ", ranks,
                     " ranks, and this command exchanges what lies in the memory of hosts only: start one "
                     "rank, or take device cpu"));
  }
  return runtime::OpenCudaDevice(0);
}

absl::StatusOr<runtime::Device*> DeviceOfRank(const std::string& name, const comm::Communicator& world) {
  if (name != "cuda") return ChosenDevice(name, world.size());
  return runtime::OpenCudaDevice(world.topology().local_rank() % std::max(runtime::CudaDeviceCount(), 1));
}

}  // namespace cohort::tools
