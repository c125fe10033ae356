// Recordings of a CUDA device: the stream's capture as a graph.
#pragma once

#include <cuda_runtime_api.h>

#include <memory>

#include "runtime/device/recording.h"

namespace cohort::runtime {

class CudaDevice;

class CudaGraph final : public Recording {
 public:
  // `graph` is taken over; `memory` is what its kernels use of their own.
  CudaGraph(CudaDevice& device, cudaGraph_t graph, std::shared_ptr<void> memory);
  ~CudaGraph() override;
  void Replay() override;

 private:
  CudaDevice& device_;
  const std::shared_ptr<void> memory_;
  cudaGraphExec_t work_ = nullptr;
};

}  // namespace cohort::runtime
