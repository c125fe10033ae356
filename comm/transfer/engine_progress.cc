// Who makes progress. Threads that wait do it themselves, for the shortest way from a frame to whom it is
// for: they spin, yield, and then one of them sleeps on the event fds and the others on a condition. While
// nobody waits, the engine's own thread sleeps there, so that writes of peers arrive without any call here.
#include <poll.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>

#include "comm/doorbell.h"
#include "comm/pause.h"
#include "comm/policy.h"
#include "comm/transfer/engine.h"
#include "comm/transfer/policy.h"

namespace cohort::comm::transfer {

// The rings of this host: a load for each peer where there is nothing.
bool Engine::LookAtRings() {
  bool moved = false;
  for (Peer* peer : near_) {
    if (peer->lost) continue;
    if (!peer->small.empty() || !peer->outbound.empty()) {
      peer->acked = std::max(peer->acked, peer->ring->SaidDoneBelow());
      if (peer->acked > peer->acked_done) {
        OnDoneBelow(*peer, peer->acked);
        moved = true;
      }
    }
    moved |= TakeLines(*peer);
  }
  return moved;
}

bool Engine::Look() {
  bool moved = LookAtRings();
  if (done_unsaid_) SayDone(Say::kUnanswered);
  const bool backlog = std::exchange(backlog_, false);
  moved |= AdvancePulls(policy::kProgressBytes);
  moved |= AdvanceCopies(policy::kProgressBytes);
  // After what has arrived: it may have made room, or be answered.
  if (moved || backlog) {
    for (const auto& [id, peer] : peers_) {
      if (!peer->lost) moved |= Pump(*peer);
    }
  }
  return moved;
}

bool Engine::Progress() {
  bool moved = false;
  if (done_unsaid_) SayDone(Say::kAll);
  // Looking at a network costs a system call; where all peers are on this host, it is for news of their loss
  // only.
  if (remote_peers_ > 0 || ++polls_ % policy::kPollsPerClock == 0) {
    const size_t budget = waiters_.load() > 0 ? policy::kTransferWaiterBytes : policy::kProgressBytes;
    for (const auto& rail : rails_) moved |= rail->Progress(budget);
  }
  backlog_ |= moved;
  for (Peer* peer : near_) {
    if (!peer->lost) (void)peer->ring->HasNews();
  }
  moved |= Look();
  const int64_t now = NowNanos();
  if (trouble_ || now - last_check_ > policy::kCheckNanos) Check(now);
  return moved;
}

void Engine::Check(int64_t now) {
  trouble_ = false;
  // This process may have been stopped itself: one look counts for so much silence at most.
  const int64_t look = std::min(now - last_check_, policy::kSilenceLookNanos);
  last_check_ = now;
  for (const auto& [id, peer] : peers_) {
    if (!peer->lost) CheckPeer(*peer, now, look);
  }
  std::vector<std::shared_ptr<Transfer>> late;
  for (const auto& transfer : transfers_) {
    if (DeadlineOf(*transfer) <= now) late.push_back(transfer);
  }
  for (const auto& transfer : late) GiveUp(*transfer, Late(*transfer));
  leaving_.remove_if([&](const auto& link) { return link.first < now; });
}

bool Engine::Arm() {
  if (hub_ != nullptr) hub_->BeginSleep();
  bool armed = pulls_.empty() && (copies_.empty() || backlog_) && !trouble_ && !done_unsaid_ &&
               std::all_of(rails_.begin(), rails_.end(), [](const auto& rail) { return rail->Arm(); });
  for (const auto& [id, peer] : peers_) {
    armed = armed && (peer->lost || peer->ring == nullptr || (!peer->ring->HasNews() && !HasAcks(*peer)));
  }
  if (!armed && hub_ != nullptr) hub_->EndSleep();
  return armed;
}

int64_t Engine::SleepLimit() const {
  if (backlog_) return policy::kBacklogSleepNanos;
  return transfers_.empty() && leaving_.empty() ? policy::kIdleNanos : policy::kMaxSleepNanos;
}

// Sleeps until something may have happened. False where there was something to do at once.
bool Engine::Sleep(std::unique_lock<CourteousMutex>& lock, int64_t nanos) {
  if (sleeping_) {
    ++sleepers_;
    changed_.wait_for(lock, std::chrono::nanoseconds(std::min(nanos, policy::kMaxSleepNanos)));
    --sleepers_;
    return true;
  }
  nanos = std::min(nanos, SleepLimit());
  if (!Arm()) return false;
  sleeping_ = true;
  long_sleep_ = nanos > policy::kMaxSleepNanos;
  std::vector<pollfd> fds = {{wake_fd_, POLLIN, 0}};
  for (const auto& rail : rails_) fds.push_back({rail->event_fd(), POLLIN, 0});
  if (hub_ != nullptr) fds.push_back({hub_->wake_fd(), POLLIN, 0});
  lock.unlock();
  const timespec limit = {nanos / 1'000'000'000, nanos % 1'000'000'000};
  ppoll(fds.data(), fds.size(), &limit, nullptr);
  lock.lock();
  sleeping_ = long_sleep_ = false;
  uint64_t wakes = 0;
  if ((fds[0].revents & POLLIN) != 0) (void)!read(wake_fd_, &wakes, sizeof(wakes));
  if (hub_ != nullptr) hub_->EndSleep();
  Progress();
  if (sleepers_ > 0) changed_.notify_all();  // one of them sleeps here next
  return true;
}

void Engine::WakeSleeper() {
  const uint64_t one = 1;
  if (sleeping_) (void)!write(wake_fd_, &one, sizeof(one));
}

void Engine::TakeOver() {
  {
    const std::lock_guard lock(takeover_mutex_);
    takeover_now_ = true;
  }
  takeover_.notify_one();
}

// Until nobody has waited for a while, as waits come one after another, or there is something to do for the engine's own
// thread. Sooner where a peer on another host is owed a word that an answer was to bring: not at once, as the answer may be
// on its way. Not under the engine's lock, which those who wait hold while they copy: a thread that wants it makes them
// yield.
void Engine::LeaveToWaiters(uint64_t* waits_seen, bool has_remote_peers) {
  const int64_t longest_nap = has_remote_peers ? policy::kTakeoverNanos : policy::kTransferLongestNapNanos;
  std::unique_lock lock(takeover_mutex_);
  int64_t nap = policy::kTakeoverNanos;
  for (; !std::exchange(takeover_now_, false); nap = std::min(2 * nap, longest_nap)) {
    if (const uint64_t waits = waits_.load(std::memory_order_relaxed);
        waiters_.load() == 0 && std::exchange(*waits_seen, waits) == waits)
      return;
    const bool owes_word =
        has_remote_peers && waiters_.load() == 0 && done_unsaid_.load(std::memory_order_relaxed);
    // A waiter that has slept says when it is done; short waits come and go without a word.
    const int64_t this_nap = slept_waiters_.load() > 0 ? policy::kMaxSleepNanos
                             : owes_word               ? policy::kTransferLastWordNanos
                                                       : nap;
    takeover_.wait_for(lock, std::chrono::nanoseconds(this_nap));
  }
}

void Engine::Loop() {
  std::unique_lock lock(mutex_);
  int idle = 0;
  uint64_t waits_seen = 0;
  while (!stop_) {
    if (!calls_.empty()) {
      const auto call = std::move(calls_.front());
      calls_.pop_front();
      lock.unlock();
      call();
      lock.lock();
      continue;
    }
    if (waiters_.load() > 0 || waits_seen != waits_.load(std::memory_order_relaxed)) {
      const bool has_remote_peers = remote_peers_ > 0;
      lock.unlock();
      LeaveToWaiters(&waits_seen, has_remote_peers);
      lock.lock();
      continue;
    }
    if (Progress()) {
      idle = 0;
    } else if (++idle > policy::kSpinPollsShared && Sleep(lock, policy::kIdleNanos)) {
      idle = 0;
      continue;
    }
    lock.unlock();
    sched_yield();
    lock.lock();
  }
}

bool Engine::Poll(Transfer& transfer) {
  if (transfer.done.load(std::memory_order_acquire)) return true;
  if (const std::unique_lock lock(mutex_, std::try_to_lock); lock.owns_lock() && !closed_) {
    Progress();
    // Who polls may not look again for long, and meanwhile the engine's thread may sleep on the event fds.
    if (done_unsaid_) SayDone(Say::kAll);
  }
  return transfer.done.load(std::memory_order_acquire);
}

// A waiter's turn under the lock: some looks at the rings, or one where there is something to copy, then at what takes
// longer, and once in a while at everything.
bool Engine::Turn(const Transfer& transfer, bool everything) {
  const int looks = near_.empty() ? 0 : copies_.empty() && pulls_.empty() ? policy::kTransferLooks : 1;
  bool moved = false;
  for (int look = 0; look < looks && !moved; ++look) {
    if (look > 0) Pause();
    moved = LookAtRings();
    if (transfer.done.load(std::memory_order_relaxed) || mutex_.wanted()) return moved;
  }
  // Lines may keep coming; deadlines and lost peers are looked for all the same.
  if (everything || (!moved && (remote_peers_ > 0 || trouble_))) return Progress() || moved;
  return moved || Look();
}

absl::Status Engine::Wait(Transfer& transfer, absl::Time deadline) {
  if (transfer.done.load(std::memory_order_acquire)) return transfer.status;
  waiters_.fetch_add(1);
  const absl::Time limit = deadline;
  bool slept = false, late = false;
  int turns = 0;
  for (int polls = 0; !late; ++polls) {
    bool moved = false;
    {
      std::unique_lock lock(mutex_, std::try_to_lock);
      if (lock.owns_lock() && !closed_) moved = Turn(transfer, turns++ % policy::kTransferTurns == 0);
    }
    if (transfer.done.load(std::memory_order_acquire)) break;
    if (mutex_.wanted()) sched_yield();
    if (moved) polls = 0;
    if (polls < spin_polls_) continue;
    if (polls < spin_polls_ + policy::kYieldPolls) {
      sched_yield();
      continue;
    }
    const absl::Duration left = limit - absl::Now();
    late = left <= absl::ZeroDuration();
    if (late) break;
    std::unique_lock lock(mutex_);
    if (transfer.done.load(std::memory_order_acquire)) break;
    if (!std::exchange(slept, true)) slept_waiters_.fetch_add(1);
    Sleep(lock, absl::ToInt64Nanoseconds(std::min(left, absl::Nanoseconds(policy::kMaxSleepNanos))));
    polls = spin_polls_ + policy::kYieldPolls - 2;  // woken for this, or for nothing
  }
  waits_.store(waits_.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
  if (slept) slept_waiters_.fetch_sub(1);
  waiters_.fetch_sub(1);
  if (slept) TakeOver();
  if (!late) return transfer.status;
  return absl::DeadlineExceededError("the transfer goes on: the wait's own deadline has come");
}

}  // namespace cohort::comm::transfer
