// How CUDA devices of several processes reach each other: NCCL, in the device's own queue.
#include <utility>

#include "comm/check.h"
#include "comm/nccl/device_communicator.h"
#include "runtime/device/cuda/cuda_device.h"
#include "runtime/device/cuda/open_cuda_device.h"

namespace cohort::runtime {

std::string CudaDevice::hardware() const { return CudaHardware(traits_.ordinal); }

absl::StatusOr<std::unique_ptr<comm::Communicator>> CudaDevice::ConnectDirectly(
    std::shared_ptr<comm::Communicator> host) {
  // Ranks that have no NCCL say so before the others begin to wait for them in it.
  const absl::StatusOr<comm::nccl::NcclApi*> api = comm::nccl::OpenNccl();
  int64_t all = api.ok() ? 1 : 0;
  COHORT_RETURN_IF_ERROR(host->AllReduce(&all, &all, 1, DataType::kI64, comm::ReduceOp::kMin).Wait());
  COHORT_RETURN_IF_ERROR(api.status());
  if (all == 0) return absl::UnavailableError("another rank has no NCCL");
  MakeCurrent();
  return comm::nccl::DeviceCommunicator::Create(
      std::move(host), {.device = traits_.ordinal, .stream = static_cast<comm::nccl::Stream>(stream_)},
      **api);
}

}  // namespace cohort::runtime
