#include "runtime/device/cuda/cuda_graph.h"

#include <utility>

#include "runtime/device/cuda/cuda_device.h"
#include "runtime/device/cuda/cuda_status.h"
#include "runtime/device/recording_memory.h"

namespace cohort::runtime {

CudaGraph::CudaGraph(CudaDevice& device, cudaGraph_t graph, std::shared_ptr<void> memory)
    : device_(device), memory_(std::move(memory)) {
  CheckCuda(cudaGraphInstantiateWithFlags(&work_, graph, 0), "cudaGraphInstantiateWithFlags");
  CheckCuda(cudaGraphDestroy(graph), "cudaGraphDestroy");
}

CudaGraph::~CudaGraph() {
  device_.Synchronize();  // it may still run
  cudaGraphExecDestroy(work_);
}

void CudaGraph::Replay() {
  device_.MakeCurrent();
  CheckCuda(cudaGraphLaunch(work_, device_.stream()), "cudaGraphLaunch");
}

// Memory never comes from the stream while it is captured, which would make it the graph's own: the rehearsal says how
// much there must be, and what is freed meanwhile but older waits for the end.
std::unique_ptr<Recording> CudaDevice::Record(const std::function<void()>& work) {
  MakeCurrent();
  blas_workspace();  // of the device, not of the recording that needs it first
  cudaGraph_t graph = nullptr;
  const auto begin = [&] {
    capturing_ = true;
    CheckCuda(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
  };
  const auto end = [&] {
    CheckCuda(cudaStreamEndCapture(stream_, &graph), "cudaStreamEndCapture");
    capturing_ = false;
  };
  const std::shared_ptr<void> block = RehearseAndRecord(*this, recording_, work, begin, end);
  for (const auto& [freed, bytes] : std::exchange(freed_late_, {})) Return(freed, bytes);
  return std::make_unique<CudaGraph>(*this, graph, block);
}

}  // namespace cohort::runtime
