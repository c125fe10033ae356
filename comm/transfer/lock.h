// A mutex whose holder can see that others want it, and so may hold it while it polls and copies.
#pragma once

#include <atomic>

namespace cohort::comm::transfer {

// Taken and let go by one instruction each where nobody else wants it: half the price of a std::mutex, which also writes
// down its owner. Who waits sleeps. (Drepper, "Futexes Are Tricky", 2011, section 6.)
class CourteousMutex {
 public:
  void lock() {
    if (try_lock()) return;
    wanted_.fetch_add(1, std::memory_order_relaxed);
    while (state_.exchange(kAwaited, std::memory_order_acquire) != kFree)
      state_.wait(kAwaited, std::memory_order_relaxed);
    wanted_.fetch_sub(1, std::memory_order_relaxed);
  }
  bool try_lock() {
    int free = kFree;
    return state_.compare_exchange_strong(free, kTaken, std::memory_order_acquire, std::memory_order_relaxed);
  }
  void unlock() {
    if (state_.exchange(kFree, std::memory_order_release) == kAwaited) state_.notify_one();
  }
  // Whether some thread waits for it.
  bool wanted() const { return wanted_.load(std::memory_order_relaxed) != 0; }

 private:
  static constexpr int kFree = 0, kTaken = 1, kAwaited = 2;
  std::atomic<int> state_{kFree};
  std::atomic<int> wanted_{0};
};

}  // namespace cohort::comm::transfer
