// The watcher: it finishes operations, moves pieces between hosts, and ends everything where something is wrong.
#include <atomic>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "comm/check.h"
#include "comm/nccl/session.h"

namespace cohort::comm::nccl {

DeviceRun::DeviceRun(std::shared_ptr<Session> session, Signature signature, absl::Duration timeout)
    : session_(std::move(session)), signature_(signature), deadline_(absl::Now() + timeout) {}

bool DeviceRun::Done() {
  const Session::Lock lock(session_->mutex_);
  if (!done_) session_->PollLocked();
  return done_;
}

absl::Status DeviceRun::Wait(absl::Time deadline) {
  // The watcher is earlier, unless CUDA holds it.
  const absl::Time last = deadline_ + policy::kLockPatience + 3 * policy::kAbortPatience;
  const absl::Time began = absl::Now();
  for (int polls = 0;; ++polls) {
    {
      Session::Lock lock(session_->mutex_);
      if (!done_) session_->PollLocked();
      if (done_) return status_;
    }
    if (polls < policy::kSpinPolls) continue;
    const absl::Time now = absl::Now();
    if (now > deadline || now > last) {
      return absl::DeadlineExceededError(absl::StrCat(Describe(signature_), " is still in flight after ",
                                                      absl::FormatDuration(now - began), " of waiting"));
    }
    if (now - began < policy::kYieldTime) {
      std::this_thread::yield();
    } else {
      absl::SleepFor(policy::kWaitSleep);
    }
  }
}

Session::~Session() {
  Close();
  Free();
}

void Session::Free() {
  watch_.reset();  // of its round nothing is in flight then
  if (stuck_) {
    (void)bridge_.release();  // its memory may be in use
    return;
  }
  (void)api_.UseDevice(device_);
  bridge_.reset();
  for (const Event event : events_) api_.DestroyEvent(event);
  events_.clear();
}

void Session::Fail(const absl::Status& why) {
  Lock lock(mutex_);
  FailLocked(why, /*tell=*/true);
  changed_.wait_for(lock, absl::ToChronoNanoseconds(policy::kLockPatience + 2 * policy::kAbortPatience),
                    [&] { return ended_ || closing_; });
}

void Session::Close() {
  {
    const Lock lock(mutex_);
    closing_ = true;
    changed_.notify_all();
  }
  if (!watcher_.joinable()) return;
  watcher_.join();
  watch_->End(
      absl::AbortedError(absl::StrCat("rank ", members_[rank_], " has closed its device communicator")));
  bool failed;
  {
    const Lock lock(mutex_);
    failed = !failed_.ok();
  }
  if (!failed) FinalizeNccl();
  const Lock lock(mutex_);
  Free();
}

void Session::WatcherMain() {
  absl::Status status = api_.UseDevice(device_);
  Lock lock(mutex_);
  if (!status.ok()) FailLocked(status, /*tell=*/true);
  for (;;) {
    if (!failed_.ok() && !ended_) {
      lock.unlock();
      End();
      lock.lock();
    }
    const bool idle = runs_.empty();
    if (closing_ && idle) {
      if (ended_ || watch_->over()) return;
      if (close_by_ == absl::InfiniteFuture()) close_by_ = absl::Now() + policy::kClosePatience;
      if (absl::Now() > close_by_) return;
    }
    if (!ended_) {
      CheckNcclLocked();
      PollLocked();
      CheckDeadlinesLocked();
      std::shared_ptr<DeviceRun> crossing;
      for (const auto& run : runs_) {
        if (!run->crossing_.has_value()) continue;
        crossing = run;
        break;
      }
      pulse_.closing = closing_ && runs_.empty() ? 1 : 0;
      const Pulse pulse = pulse_;
      const bool busy = !runs_.empty() || closing_, failed = !failed_.ok();
      lock.unlock();
      absl::StatusOr<bool> crossed = false;
      if (crossing != nullptr && !failed) crossed = bridge_->Advance(*crossing->crossing_);
      if (!failed) status = watch_->Step(pulse, busy);
      lock.lock();
      // A lost peer is what a round says; what else that does to the exchange says less.
      if (!status.ok()) FailLocked(status, /*tell=*/status.code() == absl::StatusCode::kInvalidArgument);
      if (!crossed.ok()) FailLocked(crossed.status(), /*tell=*/true);
      if (crossed.ok() && *crossed) {
        events_.push_back(crossing->crossing_->ready);
        crossing->crossing_.reset();
      }
    }
    if (failed_.ok() || ended_) changed_.wait_until(lock, absl::ToChronoTime(PauseLocked()));
  }
}

absl::Time Session::PauseLocked() const {
  absl::Duration pause = runs_.empty() && !closing_ ? policy::kIdlePause : policy::kBusyPause;
  for (const auto& run : runs_) {
    if (run->crossing_.has_value()) pause = policy::kExchangePause;
  }
  return absl::Now() + pause;
}

void Session::PollLocked() {
  while (failed_.ok() && !runs_.empty() && runs_.front()->submitted_) {
    const std::shared_ptr<DeviceRun> run = runs_.front();
    const absl::StatusOr<bool> over = api_.Query(run->event_);
    if (!over.ok()) {
      FailLocked(over.status(), /*tell=*/true);
      return;
    }
    if (!*over) return;
    // A kernel that NCCL has given up ends too: only without an error are its results there.
    CheckNcclLocked();
    if (!failed_.ok()) return;
    runs_.pop_front();
    if (run->number_ > 0) pulse_.finished = run->number_;
    events_.push_back(run->event_);
    FinishLocked(*run, FreeScratchLocked(*run));
  }
}

void Session::CheckNcclLocked() {
  if (!failed_.ok()) return;
  const std::unique_lock using_nccl(nccl_mutex_, std::try_to_lock);
  if (!using_nccl.owns_lock()) return;  // somebody is in a call of NCCL's, which has an outcome of its own
  for (const Handle handle : {whole_, inside_}) {
    if (handle == nullptr) continue;
    const Outcome outcome = api_.AsyncError(handle);
    if (outcome.ok()) continue;
    FailLocked(absl::Status(outcome.status().code(),
                            absl::StrCat(outcome.status().message(), " (on rank ", members_[rank_], ")")),
               /*tell=*/true);
    return;
  }
}

void Session::CheckDeadlinesLocked() {
  const absl::Time now = absl::Now();
  for (const auto& run : runs_) {
    if (now <= run->deadline_) continue;
    FailLocked(watch_->Late(run->number_, run->peers_, Describe(run->signature_)), /*tell=*/true);
    return;
  }
}

void Session::FailLocked(const absl::Status& why, bool tell) {
  if (!failed_.ok()) return;
  failed_ = why.ok() ? absl::AbortedError("aborted") : why;
  tell_ = tell;
  if (bridge_ != nullptr) bridge_->Release();
  changed_.notify_all();
}

void Session::FinishLocked(DeviceRun& run, const absl::Status& status) {
  run.done_ = true;
  run.status_ = status;
  changed_.notify_all();
}

absl::Status Session::FreeScratchLocked(DeviceRun& run) {
  void* const scratch = std::exchange(run.scratch_, nullptr);
  // Where something did not end, it may be in use, and is never freed.
  if (scratch == nullptr || stuck_) return absl::OkStatus();
  COHORT_RETURN_IF_ERROR(api_.UseDevice(device_));
  return api_.Free(scratch, stream_);
}

void Session::End() {
  Lock lock(mutex_);
  const absl::Status why = failed_;
  const bool tell = tell_;
  lock.unlock();
  // The others first: they wait for this rank.
  if (tell) watch_->End(why);
  const absl::Time deadline = absl::Now() + policy::kAbortPatience;
  bool clean = AbortNccl();
  if (bridge_ != nullptr) clean = bridge_->End(why, deadline) && clean;
  clean = WaitForEvents(deadline) && clean;
  lock.lock();
  stuck_ = !clean;
  // One that a caller is still in is no longer waited for: its call finds the handle gone.
  for (const auto& run : runs_) {
    if (clean && run->submitted_) events_.push_back(run->event_);
    (void)FreeScratchLocked(*run);
    FinishLocked(*run, why);
  }
  runs_.clear();
  ended_ = true;
  changed_.notify_all();
}

bool Session::AbortNccl() {
  std::unique_lock using_nccl(nccl_mutex_, absl::ToChronoNanoseconds(policy::kLockPatience));
  // Where a call of NCCL's does not come back the handles are aborted under it: an abort is what ends such a call.
  const std::vector<Handle> handles = {std::exchange(whole_, nullptr), std::exchange(inside_, nullptr)};
  if (using_nccl.owns_lock()) using_nccl.unlock();
  // Each in a thread of its own, all at once: an abort frees device memory, which waits for kernels of the others, and some
  // never return.
  struct Aborts {
    std::atomic<int> left{0};
  };
  auto aborts = std::make_shared<Aborts>();
  for (const Handle handle : handles) {
    if (handle == nullptr) continue;
    ++aborts->left;
    std::thread([&api = api_, device = device_, handle, aborts] {
      (void)api.UseDevice(device);
      (void)api.Abort(handle);
      --aborts->left;
    }).detach();
  }
  const absl::Time deadline = absl::Now() + policy::kAbortPatience;
  while (aborts->left > 0 && absl::Now() < deadline) absl::SleepFor(policy::kPendingPause);
  return aborts->left == 0;
}

bool Session::WaitForEvents(absl::Time deadline) {
  std::vector<Event> events;
  {
    const Lock lock(mutex_);
    for (const auto& run : runs_) {
      if (run->submitted_) events.push_back(run->event_);
    }
  }
  for (const Event event : events) {
    for (;;) {
      const absl::StatusOr<bool> over = api_.Query(event);
      if (!over.ok()) return false;
      if (*over) break;
      if (absl::Now() > deadline) return false;
      absl::SleepFor(policy::kPendingPause);
    }
  }
  return true;
}

void Session::FinalizeNccl() {
  (void)api_.UseDevice(device_);
  const absl::Time deadline = absl::Now() + policy::kClosePatience;
  for (Handle* handle : {&inside_, &whole_}) {
    if (*handle == nullptr) continue;
    Outcome outcome = api_.Finalize(*handle);
    while (outcome.ok() && *outcome == Progress::kPending && absl::Now() < deadline) {
      absl::SleepFor(policy::kPendingPause);
      outcome = api_.AsyncError(*handle);
    }
    if (!outcome.ok() || *outcome == Progress::kPending) continue;
    (void)api_.Destroy(*handle);
    *handle = nullptr;
  }
  if (whole_ != nullptr || inside_ != nullptr) stuck_ = !AbortNccl() || stuck_;
}

}  // namespace cohort::comm::nccl
