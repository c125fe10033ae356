// A place in a queue (CUDA: an event in a stream), for another queue or the host to wait for.
#pragma once

#include <cuda_runtime_api.h>

namespace cohort::runtime {

// Of the device that is current where it is made. Not thread-safe.
class CudaEvent {
 public:
  CudaEvent();
  ~CudaEvent();
  CudaEvent(const CudaEvent&) = delete;
  CudaEvent& operator=(const CudaEvent&) = delete;

  // The place after all that is in the queue now.
  void Record(cudaStream_t queue);
  // What is enqueued there from now on comes after the recorded place. Nothing, where none was recorded.
  void MakeWait(cudaStream_t queue) const;
  // The host waits for the recorded place. Returns at once where none was recorded.
  void Wait() const;

 private:
  cudaEvent_t event_ = nullptr;
};

}  // namespace cohort::runtime
