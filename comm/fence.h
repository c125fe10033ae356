// What one process shows another that may be about to sleep: first the value, then a look at who sleeps.
#pragma once

#include <atomic>

#ifdef __SANITIZE_THREAD__
#define COHORT_THREAD_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define COHORT_THREAD_SANITIZER 1
#endif
#endif

namespace cohort::comm {

// Stores with release, and orders the store before the loads that follow, as a sequentially consistent store does. That
// one would take the cache line for itself once more, away from a peer that polls it: the plain store leaves together
// with those before it to the same line, and only the fence waits (8 ns of 80 where two cores hand a line over).
template <typename T>
void StoreAndFence(std::atomic<T>& shown, T value) {
#ifdef COHORT_THREAD_SANITIZER  // which does not know fences
  shown.store(value, std::memory_order_seq_cst);
#else
  shown.store(value, std::memory_order_release);
  std::atomic_thread_fence(std::memory_order_seq_cst);
#endif
}

}  // namespace cohort::comm
