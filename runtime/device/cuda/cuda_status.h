// Errors of CUDA and cuBLAS in the project's terms: a status that names the call, the tensors and what to do; and, where
// an error can only be a bug of ours or comes out of work that is already enqueued, an end with the same words.
#pragma once

#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include <initializer_list>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "runtime/tensor.h"

namespace cohort::runtime {

// "cudaMemcpyAsync of bf16[4,8] on cuda:0: an illegal memory access was encountered (cudaErrorIllegalAddress)". `what`
// may be empty. OK for cudaSuccess.
absl::Status CudaStatus(cudaError_t error, absl::string_view call, absl::string_view what = "");
absl::Status CublasStatus(cublasStatus_t status, absl::string_view call, absl::string_view what = "");

// Aborts with a status's message. Errors of CUDA stay: after one of a kernel the device does no more for this process.
[[noreturn]] void EndWithStatus(const absl::Status& status);
// The names of tensors, for a status.
std::string NamesOf(std::initializer_list<const Tensor*> tensors);

// What returned `error` was `call`, on these tensors. Ends the process unless it is a success.
template <typename... Tensors>
void CheckCuda(cudaError_t error, const char* call, const Tensors&... tensors) {
  if (error != cudaSuccess) [[unlikely]]
    EndWithStatus(CudaStatus(error, call, NamesOf({&tensors...})));
}
template <typename... Tensors>
void CheckCublas(cublasStatus_t status, const char* call, const Tensors&... tensors) {
  if (status != CUBLAS_STATUS_SUCCESS) [[unlikely]] {
    EndWithStatus(CublasStatus(status, call, NamesOf({&tensors...})));
  }
}
// After a kernel's launch: whether it could be started. What happens in it is found by a later call.
template <typename... Tensors>
void CheckLaunch(const char* kernel, const Tensors&... tensors) {
  CheckCuda(cudaGetLastError(), kernel, tensors...);
}

}  // namespace cohort::runtime
