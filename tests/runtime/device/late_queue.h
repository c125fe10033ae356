// A queue whose work runs in order, on a thread of its own, and not before it must.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "comm/check.h"

namespace cohort::runtime {

// Thread-safe. Never destroyed (its owner lives as long as the process).
class LateQueue {
 public:
  LateQueue() : thread_([this] { Run(); }) {}

  void Push(std::function<void()> work) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (recording_) return recorded_.push_back(std::move(work));
    waiting_.push_back(std::move(work));
    ++pushed_;
    if (waiting_.size() > kMost) Ask(pushed_);
  }
  // Returns when all that was pushed has run.
  void Drain() { DrainTo(pushed()); }
  // Returns when so much of what was pushed has run, counted from the beginning.
  void DrainTo(int64_t pushed) {
    std::unique_lock<std::mutex> lock(mutex_);
    COHORT_CHECK(!recording_, "a wait in the middle of work that is recorded");
    const auto until = static_cast<uint64_t>(pushed);
    Ask(until);
    done_changed_.wait(lock, [&] { return done_ >= until; });
  }
  // Until EndRecording, which returns it in order, what is pushed is kept and not run.
  void BeginRecording() {
    const std::lock_guard<std::mutex> lock(mutex_);
    recording_ = true;
  }
  std::vector<std::function<void()>> EndRecording() {
    const std::lock_guard<std::mutex> lock(mutex_);
    recording_ = false;
    return std::exchange(recorded_, {});
  }
  // Since the beginning.
  int64_t pushed() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return static_cast<int64_t>(pushed_);
  }
  bool recording() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return recording_;
  }

 private:
  static constexpr size_t kMost =
      300;  // less than a step of any model, so that some of its work runs beside the host

  void Ask(uint64_t until) {
    if (until <= asked_) return;
    asked_ = until;
    asked_changed_.notify_one();
  }
  void Run() {
    std::unique_lock<std::mutex> lock(mutex_);
    while (true) {
      asked_changed_.wait(lock, [&] { return done_ < asked_; });
      std::function<void()> work = std::move(waiting_.front());
      waiting_.pop_front();
      lock.unlock();
      work();
      work = nullptr;
      lock.lock();
      ++done_;
      if (done_ == asked_) done_changed_.notify_all();
    }
  }

  mutable std::mutex mutex_;
  std::condition_variable asked_changed_, done_changed_;
  std::deque<std::function<void()>> waiting_;
  bool recording_ = false;
  std::vector<std::function<void()>> recorded_;
  uint64_t pushed_ = 0, asked_ = 0, done_ = 0;
  std::thread thread_;
};

}  // namespace cohort::runtime
