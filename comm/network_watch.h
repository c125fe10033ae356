// Sleeping on a network, whose news do not ring the doorbell but make a descriptor readable.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <thread>

#include "comm/doorbell.h"

namespace cohort::comm {

// Two ways to sleep for a thread that waits: on the descriptor itself, which is the fastest where only remote peers
// are awaited; or on the doorbell, with a thread here that watches the descriptor in the meantime and rings. The same
// thread answers peers while nobody waits for anything, so that a rank that computes is not taken for lost.
class NetworkWatch {
 public:
  struct Callbacks {
    std::function<bool()> busy;   // somebody makes progress
    std::function<bool()> serve;  // makes progress, and arms; false: look again soon
  };
  // `event_fd` becomes readable when something comes after the network was armed.
  NetworkWatch(int event_fd, Doorbell* doorbell, Callbacks callbacks);
  ~NetworkWatch();
  NetworkWatch(const NetworkWatch&) = delete;
  NetworkWatch& operator=(const NetworkWatch&) = delete;

  // After arming: sleeps until something comes, Wake, or the limit. BeginSleep makes Wake see the sleeper: look for
  // what it waits for once more in between.
  void BeginSleep() { sleepers_.fetch_add(1, std::memory_order_seq_cst); }
  void Sleep(int64_t nanos);
  void EndSleep();
  // Wakes those who sleep here.
  void Wake();

  // After arming: rings the doorbell when something comes.
  void RelayOnce();

 private:
  void Main();
  // Whether the descriptor became readable.
  bool Poll(int wake_fd, int64_t nanos) const;

  const int event_fd_;
  Doorbell* const doorbell_;
  const Callbacks callbacks_;
  const int sleeper_fd_;  // eventfd: ends Sleep
  const int thread_fd_;   // eventfd: ends the thread's sleep
  std::atomic<int> sleepers_{0};
  Doorbell thread_bell_{};
  std::atomic<bool> relay_{false};
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

}  // namespace cohort::comm
