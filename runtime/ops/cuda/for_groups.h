// Loops over the elements of tensors, for elementwise kernels: a group of eight elements a thread and turn.
#pragma once

#include "runtime/ops/cuda/element.h"
#include "runtime/ops/cuda/launch.h"

namespace cohort::runtime::COHORT_CUDA {

inline constexpr int kElementThreads = 256;

// body(i, wide, count): the group of `count` elements that begins at i, all of which it may load at once where `wide`.
template <typename Body>
__global__ void __launch_bounds__(kElementThreads) ForGroups(Body body, int64_t n, bool wide) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * kElementThreads;
  for (int64_t group = static_cast<int64_t>(blockIdx.x) * kElementThreads + threadIdx.x; group * kGroup < n;
       group += step) {
    const int64_t i = group * kGroup, left = n - i;
    body(i, wide && left >= kGroup, static_cast<int>(left < kGroup ? left : kGroup));
  }
}

// wide where all `pointers` are 16-byte aligned.
template <typename Body, typename... P>
void LaunchGroups(const Queue& queue, const Body& body, int64_t n, const P*... pointers) {
  Launch(queue, ForGroups<Body>, GridFor(queue, CeilDiv(n, kGroup), kElementThreads), kElementThreads, 0,
         body, n, (Aligned16(pointers) && ...));
}

// body(i): what is rare, or not made of floats.
template <typename Body>
__global__ void __launch_bounds__(kElementThreads) ForEach(Body body, int64_t n) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * kElementThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kElementThreads + threadIdx.x; i < n; i += step)
    body(i);
}

template <typename Body>
void LaunchEach(const Queue& queue, const Body& body, int64_t n) {
  Launch(queue, ForEach<Body>, GridFor(queue, n, kElementThreads), kElementThreads, 0, body, n);
}

}  // namespace cohort::runtime::COHORT_CUDA
