#include "runtime/ops/cuda/cuda_ops.h"

#include <utility>

namespace cohort::runtime::COHORT_CUDA {

CudaOps::CudaOps(Device& device, Queue queue, std::function<void()> enter, std::unique_ptr<Blas> blas)
    : device_(device), queue_(queue), enter_(std::move(enter)), blas_(std::move(blas)) {}

Tensor CudaOps::Scratch(Shape shape, DataType dtype) const {
  return Tensor::Empty(device_, std::move(shape), dtype);
}

}  // namespace cohort::runtime::COHORT_CUDA
