// How CPU operations share work between threads. Ranges depend only on sizes and the number of threads.
#pragma once

#include <omp.h>

#include <algorithm>
#include <cstdint>

#include "runtime/device/device.h"

namespace cohort::runtime {

// Calls body(begin, end) on disjoint ranges that cover [0, n), on up to CpuThreads() threads; a thread gets
// at least `grain` of them, and ranges begin at multiples of `align`.
template <typename Body>
void ParallelFor(int64_t n, int64_t grain, int64_t align, const Body& body) {
  if (n <= 0) return;
  const int64_t useful = (n + grain - 1) / grain;
  const int threads = static_cast<int>(std::min<int64_t>(CpuThreads(), useful));
  if (threads <= 1) {
    body(int64_t{0}, n);
    return;
  }
#pragma omp parallel num_threads(threads)
  {
    const int64_t share =
        ((n + omp_get_num_threads() - 1) / omp_get_num_threads() + align - 1) / align * align;
    const int64_t begin = std::min(n, omp_get_thread_num() * share);
    const int64_t end = std::min(n, begin + share);
    if (begin < end) body(begin, end);
  }
}

}  // namespace cohort::runtime
