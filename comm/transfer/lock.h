// A mutex whose holder can see that others want it, and so may hold it while it polls.
#pragma once

#include <atomic>
#include <mutex>

namespace cohort::comm::transfer {

class CourteousMutex {
 public:
  void lock() {
    if (mutex_.try_lock()) return;
    wanted_.fetch_add(1, std::memory_order_relaxed);
    mutex_.lock();
    wanted_.fetch_sub(1, std::memory_order_relaxed);
  }
  bool try_lock() { return mutex_.try_lock(); }
  void unlock() { mutex_.unlock(); }
  // Whether some thread waits for it.
  bool wanted() const { return wanted_.load(std::memory_order_relaxed) != 0; }

 private:
  std::mutex mutex_;
  std::atomic<int> wanted_{0};
};

}  // namespace cohort::comm::transfer
