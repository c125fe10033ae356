// Who makes progress, and who sleeps: the engine's waits and its thread.
#include <sched.h>

#include <algorithm>

#include "comm/engine.h"
#include "comm/policy.h"

namespace cohort::comm {
namespace {

inline void Pause() { __builtin_ia32_pause(); }

int64_t NanosUntil(absl::Time deadline) {
  if (deadline == absl::InfiniteFuture()) return INT64_MAX / 2;
  return absl::ToInt64Nanoseconds(deadline - absl::Now());
}

}  // namespace

bool Engine::Poll(Run& run) {
  if (mutex_.try_lock()) {
    ProgressLocked();
    mutex_.unlock();
  }
  return run.done();
}

bool Engine::SleepOnce(const std::atomic<bool>* done, int64_t limit) {
  const uint32_t seen = doorbell_->BeginSleep();
  bool moved = false;
  if (mutex_.try_lock()) {
    moved = ProgressLocked();
    if (const int64_t now = NowNanos(); now - last_check_ >= policy::kCheckNanos) CheckLocked(now);
    limit = std::min(limit, policy::kMaxSleepNanos);
    for (const auto& transport : transports_) limit = std::min(limit, transport->MaxSleepNanos());
    mutex_.unlock();
  } else {
    // Whoever holds the lock sees what came, and rings when an operation ends.
    limit = std::min(limit, policy::kMaxSleepNanos);
  }
  if (!moved && !done->load(std::memory_order_seq_cst)) doorbell_->Sleep(seen, limit);
  doorbell_->EndSleep();
  return moved;
}

absl::Status Engine::Wait(Run& run, absl::Time deadline) {
  waiters_.fetch_add(1, std::memory_order_relaxed);
  int64_t give_up = 0;  // read the clocks only when it takes longer
  absl::Status status;
  for (int idle = 0; !run.done();) {
    bool moved = false;
    if (mutex_.try_lock()) {
      moved = ProgressLocked();
      mutex_.unlock();
      if (run.done()) break;
    }
    if (moved) {
      idle = 0;
      continue;
    }
    ++idle;
    if (idle < spin_polls_) {
      Pause();
    } else if (idle < spin_polls_ + policy::kYieldPolls) {
      sched_yield();
    } else {
      const int64_t now = NowNanos();
      if (give_up == 0) give_up = now + NanosUntil(deadline);
      if (now >= give_up) {
        const std::lock_guard lock(mutex_);
        if (!run.done()) status = LateLocked(run);
        break;
      }
      if (SleepOnce(run.done_flag(), give_up - now)) idle = 0;
    }
  }
  // The thread takes over what others left within its next look.
  waiters_.fetch_sub(1, std::memory_order_relaxed);
  return status;
}

void Engine::ThreadMain() {
  int64_t last_active = NowNanos();
  int idle = 0;
  while (!stop_.load(std::memory_order_seq_cst)) {
    if (num_runs_.load(std::memory_order_seq_cst) > 0) {
      last_active = NowNanos();
      if (waiters_.load(std::memory_order_relaxed) == 0) {
        while (contenders_.load(std::memory_order_relaxed) > 0) sched_yield();
        bool moved = false;
        if (mutex_.try_lock()) {
          moved = ProgressLocked();
          mutex_.unlock();
        }
        if (moved) {
          idle = 0;
        } else if (++idle < policy::kSpinPollsShared) {
          sched_yield();
        } else {
          SleepOnce(&stop_, policy::kMaxSleepNanos);
        }
        continue;
      }
    }
    idle = 0;
    const bool linger = NowNanos() - last_active < policy::kLingerNanos;
    const uint32_t seen = thread_bell_.BeginSleep();
    if (linger) {
      thread_bell_.Sleep(seen, policy::kTakeoverNanos);
    } else {
      thread_idle_.store(true, std::memory_order_seq_cst);
      if (num_runs_.load(std::memory_order_seq_cst) == 0 && !stop_.load(std::memory_order_seq_cst)) {
        thread_bell_.Sleep(seen, policy::kIdleNanos);
      }
      thread_idle_.store(false, std::memory_order_seq_cst);
    }
    thread_bell_.EndSleep();
  }
}

}  // namespace cohort::comm
