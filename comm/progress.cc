// Who makes progress, and who sleeps: the engine's waits and its thread.
#include <sched.h>

#include <algorithm>

#include "comm/engine.h"
#include "comm/pause.h"
#include "comm/policy.h"

namespace cohort::comm {
namespace {

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

Engine::Bed Engine::ChooseBedLocked() const {
  if (network_ == nullptr) return Bed::kDoorbell;
  if (agreeing_ > 0) return Bed::kDoorbellAndNetwork;
  bool local = false, remote = false;
  for (const auto& run : runs_) {
    if (run->done()) continue;
    for (const int peer : run->AwaitedPeers()) (routes_[peer] == network_ ? remote : local) = true;
  }
  if (!remote) return Bed::kDoorbell;
  return local ? Bed::kDoorbellAndNetwork : Bed::kNetwork;
}

bool Engine::SleepOnce(const std::atomic<bool>* done, int64_t limit, const Run* blocked_in) {
  const uint32_t seen = doorbell_->BeginSleep();
  NetworkWatch* const watch = watch_.load(std::memory_order_acquire);
  if (watch != nullptr) watch->BeginSleep();
  bool moved = false;
  Bed bed = Bed::kDoorbell;
  if (mutex_.try_lock()) {
    moved = ProgressLocked();
    const int64_t now = NowNanos();
    if (blocked_in != nullptr && !blocked_in->done() && now - last_shown_ >= policy::kShowWaitingNanos) {
      last_shown_ = now;
      const std::vector<int> awaited = blocked_in->AwaitedPeers();
      for (const auto& transport : transports_) transport->PublishWaiting(now, awaited);
    }
    if (now - last_check_ >= policy::kCheckNanos) CheckLocked(now);
    limit = std::min(limit, policy::kMaxSleepNanos);
    for (const auto& transport : transports_) limit = std::min(limit, transport->MaxSleepNanos());
    if (!moved) {
      bed = ChooseBedLocked();
      if (watch == nullptr) bed = Bed::kDoorbell;  // the network came just now
      if (bed != Bed::kDoorbell && !network_->Arm()) moved = true;
    }
    mutex_.unlock();
  } else {
    // Whoever holds the lock sees what came, and rings when an operation ends.
    limit = std::min(limit, policy::kMaxSleepNanos);
  }
  if (!moved && !done->load(std::memory_order_seq_cst)) {
    if (bed == Bed::kDoorbellAndNetwork) watch->RelayOnce();
    if (bed == Bed::kNetwork) {
      watch->Sleep(limit);
    } else {
      doorbell_->Sleep(seen, limit);
    }
  }
  if (watch != nullptr) watch->EndSleep();
  doorbell_->EndSleep();
  return moved;
}

void Engine::Watch(Transport* network) {
  network_ = network;
  // A poll is a system call now, beside which a yield costs little; and a host may share its cores with others (a
  // container, a virtual machine), whose messages come no sooner for a rank that spins.
  spin_polls_ = std::min(spin_polls_.load(), policy::kSpinPollsShared);
  // And a message takes long enough to fall asleep over, where waking up costs as much as a small one.
  yield_nanos_ = policy::kNetworkYieldNanos;
  NetworkWatch::Callbacks callbacks;
  callbacks.busy = [this] {
    return num_runs_.load(std::memory_order_seq_cst) > 0 || waiters_.load(std::memory_order_relaxed) > 0;
  };
  callbacks.serve = [this] {
    if (!mutex_.try_lock()) return false;
    network_->Progress(policy::kProgressBytes);
    SweepLocked();
    const bool armed = network_->Arm();
    mutex_.unlock();
    return armed;
  };
  watch_owner_ = std::make_unique<NetworkWatch>(network->EventFd(), doorbell_, std::move(callbacks));
  watch_.store(watch_owner_.get(), std::memory_order_release);
}

absl::Status Engine::Wait(Run& run, absl::Time deadline) {
  waiters_.fetch_add(1, std::memory_order_relaxed);
  const int spin_polls = spin_polls_.load(std::memory_order_relaxed);
  int64_t give_up = 0, yield_until = 0;  // read the clocks only when it takes longer
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
    if (idle == spin_polls) yield_until = NowNanos() + yield_nanos_.load(std::memory_order_relaxed);
    if (idle < spin_polls) {
      Pause();
    } else if (NowNanos() < yield_until) {
      sched_yield();
    } else {
      const int64_t now = NowNanos();
      if (give_up == 0) give_up = now + NanosUntil(deadline);
      if (now >= give_up) {
        const std::lock_guard lock(mutex_);
        if (!run.done()) status = LateLocked(run);
        break;
      }
      if (SleepOnce(run.done_flag(), give_up - now, &run)) idle = 0;
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
    FileFlightRecord();
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
