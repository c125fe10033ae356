// The language that the kernels of this folder are written in: CUDA C++ or, where COHORT_CUDA_EMULATED is defined, plain
// C++ with the stand-ins that tests/runtime/ops/cuda has for CUDA's words (included before everything else by
// the compiler's -include). The namespace has a name of its own there, so that one program can hold both.
#pragma once

#if defined(COHORT_CUDA_EMULATED)
#define COHORT_CUDA emulated_cuda
#else
#include <cuda_runtime.h>
#define COHORT_CUDA cuda
#endif

#include <cstddef>
#include <cstdint>

// Device code is for nvcc and the stand-ins; .cc files see the declarations around it.
#if defined(__CUDACC__) || defined(COHORT_CUDA_EMULATED)
#define COHORT_DEVICE_CODE 1
#endif

namespace cohort::runtime::COHORT_CUDA {

inline constexpr int kWarp = 32;
inline constexpr unsigned kAllLanes = 0xffffffffu;

__host__ __device__ constexpr int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }
__host__ __device__ constexpr int64_t RoundUp(int64_t a, int64_t b) { return CeilDiv(a, b) * b; }
template <typename T>
__host__ __device__ constexpr T Least(T a, T b) {
  return a < b ? a : b;
}
template <typename T>
__host__ __device__ constexpr T Most(T a, T b) {
  return a < b ? b : a;
}

#if defined(COHORT_DEVICE_CODE)
// For what a caller must not do, found on the device (an index out of range): the kernel ends with an error, and so
// does the next Synchronize. On the host a message could be given; here there is none to wait for.
__device__ __forceinline__ void CheckOnDevice(bool condition) {
  if (!condition) __trap();
}
#endif

}  // namespace cohort::runtime::COHORT_CUDA
