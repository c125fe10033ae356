#include "runtime/ops/cuda/make_cuda_ops.h"

#include <cstdio>
#include <cstdlib>

#include "absl/strings/numbers.h"
#include "runtime/device/cuda/cuda_device.h"
#include "runtime/ops/cuda/cublas.h"
#include "runtime/ops/cuda/cuda_ops.h"

namespace cohort::runtime {
namespace {

// The device's, or the lower one that the environment variable COHORT_CUDA_CAPABILITY (80, say) asks for: kernels are
// chosen as for that one. A value that is none is ignored with a message on stderr.
int UsedCapability(int capability) {
  const char* asked = std::getenv("COHORT_CUDA_CAPABILITY");
  if (asked == nullptr || *asked == '\0') return capability;
  int lower = 0;
  if (absl::SimpleAtoi(asked, &lower) && lower >= 80) return lower < capability ? lower : capability;
  std::fprintf(stderr, "COHORT_CUDA_CAPABILITY=%s is not a compute capability from 80 on; using %d\n", asked,
               capability);
  return capability;
}

}  // namespace

std::unique_ptr<Ops> MakeCudaOps(CudaDevice& device) {
  const CudaTraits& traits = device.traits();
  const cuda::Queue queue = {.stream = device.stream(),
                             .multiprocessors = traits.multiprocessors,
                             .shared_limit = static_cast<int>(traits.shared_bytes_per_block),
                             .compute_capability = UsedCapability(traits.compute_capability)};
  return std::make_unique<cuda::CudaOps>(
      device, queue, [&device] { device.MakeCurrent(); }, cuda::MakeCublas(device));
}

}  // namespace cohort::runtime
