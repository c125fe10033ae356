#include "runtime/ops/cuda/launch.h"

#include "comm/check.h"

namespace cohort::runtime::COHORT_CUDA {

void LaunchFailed(dim3 grid, dim3 block, size_t shared, const char* why) {
  COHORT_CHECK(false, "a kernel of %u x %u x %u blocks of %u threads with %zu bytes of shared memory: %s",
               grid.x, grid.y, grid.z, block.x, shared, why);
  std::abort();
}

}  // namespace cohort::runtime::COHORT_CUDA
