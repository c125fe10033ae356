#include "runtime/device/cuda/cuda_status.h"

#include <cstdio>
#include <cstdlib>

#include "absl/strings/str_cat.h"

namespace cohort::runtime {
namespace {

std::string Call(absl::string_view call, absl::string_view what) {
  return what.empty() ? std::string(call) : absl::StrCat(call, " of ", what);
}

absl::StatusCode CodeOf(cudaError_t error) {
  switch (error) {
    case cudaErrorMemoryAllocation:
      return absl::StatusCode::kResourceExhausted;
    case cudaErrorNoDevice:
    case cudaErrorInsufficientDriver:
    case cudaErrorDevicesUnavailable:
    case cudaErrorSystemNotReady:
    case cudaErrorInitializationError:
      return absl::StatusCode::kUnavailable;
    case cudaErrorECCUncorrectable:
    case cudaErrorHardwareStackError:
      return absl::StatusCode::kDataLoss;
    case cudaErrorInvalidDevice:
      return absl::StatusCode::kNotFound;
    default:
      return absl::StatusCode::kInternal;
  }
}

// What to do about it, where there is something.
absl::string_view Advice(cudaError_t error) {
  switch (error) {
    case cudaErrorMemoryAllocation:
      return "; use smaller batches, shard the model further or recompute activations";
    case cudaErrorNoDevice:
      return "; nvidia-smi lists the devices of this machine, CUDA_VISIBLE_DEVICES those of this process";
    case cudaErrorInsufficientDriver:
      return "; install a driver of NVIDIA that is as new as the CUDA toolkit, or build with an older "
             "toolkit";
    case cudaErrorNoKernelImageForDevice:
      return "; configure with -DCOHORT_CUDA_ARCHITECTURES for this device and build again";
    case cudaErrorECCUncorrectable:
      return "; the device's memory is failing, use another one";
    case cudaErrorIllegalAddress:
    case cudaErrorMisalignedAddress:
    case cudaErrorLaunchFailure:
      return "; this can be an earlier kernel's: CUDA_LAUNCH_BLOCKING=1 makes each call report its own";
    default:
      return "";
  }
}

}  // namespace

absl::Status CudaStatus(cudaError_t error, absl::string_view call, absl::string_view what) {
  if (error == cudaSuccess) return absl::OkStatus();
  return absl::Status(CodeOf(error), absl::StrCat(Call(call, what), ": ", cudaGetErrorString(error), " (",
                                                  cudaGetErrorName(error), ")", Advice(error)));
}

absl::Status CublasStatus(cublasStatus_t status, absl::string_view call, absl::string_view what) {
  if (status == CUBLAS_STATUS_SUCCESS) return absl::OkStatus();
  const absl::StatusCode code = status == CUBLAS_STATUS_ALLOC_FAILED ? absl::StatusCode::kResourceExhausted
                                                                     : absl::StatusCode::kInternal;
  return absl::Status(code, absl::StrCat(Call(call, what), ": ", cublasLtGetStatusString(status), " (",
                                         cublasLtGetStatusName(status), ")"));
}

void EndWithStatus(const absl::Status& status) {
  std::fprintf(stderr, "CUDA: %s\n", status.ToString().c_str());
  std::abort();
}

std::string NamesOf(std::initializer_list<const Tensor*> tensors) {
  std::string names;
  for (const Tensor* tensor : tensors) {
    absl::StrAppend(&names, names.empty() ? "" : ", ", tensor->DebugString());
  }
  return names;
}

}  // namespace cohort::runtime
