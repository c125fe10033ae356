// What callers wait for: writes together, barriers and expectations, from their start to their end.
#include <limits>
#include <set>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "comm/doorbell.h"
#include "comm/ticks.h"
#include "comm/transfer/engine.h"
#include "comm/transfer/policy.h"

namespace cohort::comm::transfer {

namespace {

int64_t After(int64_t nanos, absl::Duration time) {
  if (time > absl::Hours(24 * 365)) return std::numeric_limits<int64_t>::max();
  return nanos + absl::ToInt64Nanoseconds(time);
}

}  // namespace

void Transfer::Renew() {
  done.store(false, std::memory_order_relaxed);
  status = first_error = absl::OkStatus();
  remaining = 0;
  deadline = 0;
  writes.clear();
  awaited.clear();
  is_barrier = is_expectation = false;
  count = 0;
}

std::shared_ptr<Transfer> Engine::NewTransfer(std::optional<absl::Time> deadline) {
  if (spare_.empty()) spare_.emplace_back();
  const auto place = spare_.begin();
  if (*place != nullptr && place->use_count() == 1) {
    std::atomic_thread_fence(std::memory_order_acquire);  // whoever else had it has let go
    (*place)->Renew();
  } else {
    // More of them, for callers that keep some, or another in the place of this one.
    if (*place != nullptr && spare_.size() < policy::kTransferSpares)
      spare_.insert(spare_.end(), std::move(*place));
    *place = std::make_shared<Transfer>();
    (*place)->engine = shared_from_this();
  }
  Transfer& transfer = **place;
  transfer.place = place;
  transfer.begun = NowTicks();
  if (deadline.has_value()) transfer.deadline = After(NowNanos(), *deadline - absl::Now());
  transfers_.splice(transfers_.end(), spare_, place);
  return *place;
}

int64_t Engine::DeadlineOf(Transfer& transfer) const {
  if (transfer.deadline == 0) transfer.deadline = After(NanosOfTicks(transfer.begun), options_.timeout);
  return transfer.deadline;
}

Work Engine::Barrier(const std::vector<PeerId>& peers, uint32_t tag, std::optional<absl::Time> deadline) {
  const std::lock_guard lock(mutex_);
  if (closed_) return Work(absl::CancelledError("the transfer engine has ended"));
  for (const PeerId id : peers) {
    Peer* peer = nullptr;
    if (const absl::Status status = Reach(id, &peer); !status.ok()) return Work(status);
  }
  if (peers.empty()) return Work();
  std::shared_ptr<Transfer> transfer = NewTransfer(deadline);
  transfer->is_barrier = true;
  transfer->immediate = tag;
  transfer->remaining = 2 * peers.size();  // to say and to hear
  transfer->awaited = peers;
  for (const PeerId id : peers) {
    Outbound write;
    write.flags = kIsBarrier;
    write.immediate = tag;
    Start(*Find(id), transfer, std::move(write));
  }
  for (const PeerId id : peers) ServeBarriers(*Find(id), tag);
  if (long_sleep_ || backlog_) WakeSleeper();
  return Work(transfer);
}

Work Engine::Expect(const ExpectRequest& request) {
  const std::lock_guard lock(mutex_);
  if (closed_) return Work(absl::CancelledError("the transfer engine has ended"));
  for (const PeerId id : request.from) {
    // What a lost peer has sent before is counted: only what is missing needs it.
    if (Find(id) == nullptr)
      return Work(absl::NotFoundError("an expectation names a peer that was never added"));
  }
  ProgressSometimes();
  if (request.count == 0 || counter_.Take(request.immediate, request.count)) return Work();
  std::shared_ptr<Transfer> transfer = NewTransfer(request.deadline);
  transfer->is_expectation = true;
  transfer->immediate = request.immediate;
  transfer->count = request.count;
  transfer->awaited = request.from;
  counter_.Expect(request.immediate, request.count, transfer.get());
  for (const PeerId id : request.from) {
    if (Find(id)->lost) GiveUp(*transfer, Find(id)->why);
  }
  if (long_sleep_) WakeSleeper();
  return Work(transfer);
}

uint64_t Engine::Count(uint32_t immediate) const {
  const std::lock_guard lock(mutex_);
  return counter_.Count(immediate);
}

void Engine::OneOver(Transfer& transfer, const absl::Status& status) {
  if (transfer.done.load(std::memory_order_relaxed)) return;
  if (transfer.first_error.ok()) transfer.first_error = status;
  if (--transfer.remaining == 0) Finish(transfer, transfer.first_error);
}

void Engine::Finish(Transfer& transfer, const absl::Status& status) {
  if (transfer.done.load(std::memory_order_relaxed)) return;
  transfer.status = status;
  std::shared_ptr<Transfer> keep;
  if (spare_.size() < policy::kTransferSpares) {
    // Behind the others: those who have it may keep it for a while.
    spare_.splice(spare_.end(), transfers_, transfer.place);
  } else {
    keep = std::move(*transfer.place);
    transfers_.erase(transfer.place);
  }
  transfer.done.store(true, std::memory_order_release);
  if (sleepers_ > 0) changed_.notify_all();
  if (sleeping_ && waiters_.load() > 0) WakeSleeper();
}

// Ends a transfer at once: its writes are taken back.
void Engine::GiveUp(Transfer& transfer, const absl::Status& status) {
  if (transfer.done.load(std::memory_order_relaxed)) return;
  if (transfer.is_expectation) {
    void* next = counter_.Cancel(transfer.immediate, &transfer);
    const uint32_t immediate = transfer.immediate;
    Finish(transfer, status);
    for (; next != nullptr;
         next = counter_.Serve(immediate))  // those behind it, for which there is enough now
      Finish(*static_cast<Transfer*>(next), absl::OkStatus());
    return;
  }
  const auto writes = std::move(transfer.writes);
  const std::shared_ptr<Transfer> keep = *transfer.place;
  Finish(transfer, status);
  for (const auto& [id, op] : writes) {
    Peer* peer = Find(id);
    if (peer == nullptr || !Pending(*peer, op)) continue;
    WriteOver(*peer, op, status);
    if (peer->lost || peer->their_incarnation == 0) continue;
    Frame frame;
    frame.type = FrameType::kAbandon;
    frame.op = op;
    SendControl(*peer, 0, frame);
  }
}

absl::Status Engine::Late(Transfer& transfer) {
  if (transfer.is_expectation) {
    return absl::DeadlineExceededError(
        absl::StrFormat("%d of %d expected immediates %d had come by the deadline",
                        counter_.Count(transfer.immediate), transfer.count, transfer.immediate));
  }
  std::set<std::string> late;
  for (const auto& [id, op] : transfer.writes) {
    Peer* peer = Find(id);
    if (peer == nullptr || !Pending(*peer, op)) continue;
    late.insert(
        absl::StrCat(Name(*peer), peer->their_incarnation == 0 ? " (it has not added this engine)" : ""));
  }
  if (transfer.is_barrier) {
    for (const PeerId id : transfer.awaited) late.insert(NameOf(id));
    return absl::DeadlineExceededError(absl::StrCat(
        "barrier ", transfer.immediate, ": not there by the deadline: ", absl::StrJoin(late, ", ")));
  }
  return absl::DeadlineExceededError(
      absl::StrCat("a write was not confirmed by the deadline by ", absl::StrJoin(late, ", ")));
}

}  // namespace cohort::comm::transfer
