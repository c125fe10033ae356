#include "runtime/ops/cuda/make_cuda_ops.h"

#include "runtime/device/cuda/cuda_device.h"
#include "runtime/ops/cuda/cublas.h"
#include "runtime/ops/cuda/cuda_ops.h"

namespace cohort::runtime {

std::unique_ptr<Ops> MakeCudaOps(CudaDevice& device) {
  const CudaTraits& traits = device.traits();
  const cuda::Queue queue = {.stream = device.stream(),
                             .multiprocessors = traits.multiprocessors,
                             .shared_limit = static_cast<int>(traits.shared_bytes_per_block),
                             .compute_capability = traits.compute_capability};
  return std::make_unique<cuda::CudaOps>(
      device, queue, [&device] { device.MakeCurrent(); }, cuda::MakeCublas(device));
}

}  // namespace cohort::runtime
