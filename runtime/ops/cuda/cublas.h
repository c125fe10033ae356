// cuBLASLt as the Blas of a device.
#pragma once

#include <memory>

#include "runtime/ops/cuda/blas.h"

namespace cohort::runtime {
class CudaDevice;
}

namespace cohort::runtime::COHORT_CUDA {

// `device` outlives it. The library's handle is made by the first product.
std::unique_ptr<Blas> MakeCublas(CudaDevice& device);

}  // namespace cohort::runtime::COHORT_CUDA
