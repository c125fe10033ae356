#include "runtime/device/cuda/cuda_event.h"

#include "runtime/device/cuda/cuda_status.h"

namespace cohort::runtime {

CudaEvent::CudaEvent() {
  // Without a time it costs less, and a host that waits for it sleeps instead of spinning: ranks may outnumber cores.
  CheckCuda(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming | cudaEventBlockingSync),
            "cudaEventCreateWithFlags");
}

CudaEvent::~CudaEvent() { cudaEventDestroy(event_); }

void CudaEvent::Record(cudaStream_t queue) { CheckCuda(cudaEventRecord(event_, queue), "cudaEventRecord"); }

void CudaEvent::MakeWait(cudaStream_t queue) const {
  CheckCuda(cudaStreamWaitEvent(queue, event_, 0), "cudaStreamWaitEvent");
}

void CudaEvent::Wait() const { CheckCuda(cudaEventSynchronize(event_), "cudaEventSynchronize"); }

}  // namespace cohort::runtime
