// Starting kernels. Everything goes onto one stream, nothing waits for anything, so that whatever is enqueued here can
// be captured in a graph.
#pragma once

#include "runtime/ops/cuda/language.h"

namespace cohort::runtime::COHORT_CUDA {

// Where kernels run.
struct Queue {
  cudaStream_t stream = nullptr;
  int multiprocessors = 1;
  int shared_limit = 48 << 10;  // bytes of shared memory that a block may ask for (the opt-in limit)
  int compute_capability = 80;
};

// Aborts with what was to be launched and what is wrong (launch.cc: the headers of an abort take longer to compile than
// most kernels, and .cu files are compiled once an architecture).
[[noreturn]] void LaunchFailed(dim3 grid, dim3 block, size_t shared, const char* why);

#if defined(__CUDACC__)
// kernel<<<grid, block, shared, stream>>>(arguments...); nothing where the grid is empty.
template <typename... P, typename... A>
void Launch(const Queue& queue, void (*kernel)(P...), dim3 grid, dim3 block, size_t shared, A... arguments) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  cudaError_t error = cudaSuccess;
  if (shared > 48 << 10) {  // beyond what every device gives unasked
    error = cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                                 cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared));
  }
  if (error == cudaSuccess) {
    // The call's own result: cudaGetLastError would also tell what an earlier call of this thread has left there.
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = block;
    config.dynamicSmemBytes = shared;
    config.stream = queue.stream;
    error = cudaLaunchKernelEx(&config, kernel, static_cast<P>(arguments)...);
  }
  if (error != cudaSuccess) LaunchFailed(grid, block, shared, cudaGetErrorString(error));
}
#elif defined(COHORT_CUDA_EMULATED)
template <typename... P, typename... A>
void Launch(const Queue& queue, void (*kernel)(P...), dim3 grid, dim3 block, size_t shared, A... arguments) {
  if (shared > static_cast<size_t>(queue.shared_limit))
    LaunchFailed(grid, block, shared, "too much shared memory");
  emulator::Run(grid, block, shared, [=] { kernel(static_cast<P>(arguments)...); });
}
#endif

// Blocks of `threads` for `items`, at most `waves` times as many as the device runs at once (of 2048 threads each
// multiprocessor): kernels walk on by the size of the grid.
inline dim3 GridFor(const Queue& queue, int64_t items, int threads, int waves = 4) {
  const int64_t most = static_cast<int64_t>(queue.multiprocessors) * (2048 / threads) * waves;
  return dim3(static_cast<unsigned>(Least(CeilDiv(items, threads), most)));
}

}  // namespace cohort::runtime::COHORT_CUDA
