#include "runtime/device/cuda/cuda_event.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "runtime/device/cuda/cuda_status.h"
#include "runtime/device/cuda/policy.h"

namespace cohort::runtime {

CudaEvent::CudaEvent() {
  // Without a time it costs less.
  CheckCuda(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "cudaEventCreateWithFlags");
}

CudaEvent::~CudaEvent() { cudaEventDestroy(event_); }

void CudaEvent::Record(cudaStream_t queue) { CheckCuda(cudaEventRecord(event_, queue), "cudaEventRecord"); }

void CudaEvent::MakeWait(cudaStream_t queue) const {
  CheckCuda(cudaStreamWaitEvent(queue, event_, 0), "cudaStreamWaitEvent");
}

// Not by CUDA's own waits, which have no deadline, and spin or block but not first the one and then the other.
void CudaEvent::Wait() const {
  const absl::Time begin = absl::Now();
  for (;;) {
    const cudaError_t error = cudaEventQuery(event_);
    if (error == cudaSuccess) return;
    if (error != cudaErrorNotReady) CheckCuda(error, "cudaEventQuery");
    cudaGetLastError();  // not to be found by the next launch
    const absl::Duration waited = absl::Now() - begin;
    if (waited > cuda_policy::kDeadline) {
      EndWithStatus(absl::DeadlineExceededError(
          absl::StrCat("the device has not finished what was enqueued for ", absl::FormatDuration(waited),
                       ": a kernel hangs, or the device is lost; nvidia-smi and the kernel's log say more")));
    }
    if (waited < cuda_policy::kSpin) continue;
    absl::SleepFor(
        std::clamp(waited / cuda_policy::kPausePart, cuda_policy::kLeastPause, cuda_policy::kMostPause));
  }
}

}  // namespace cohort::runtime
