// Enqueuing: what a call does in the caller's thread, in the order of the stream.
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "comm/check.h"
#include "comm/nccl/session.h"

namespace cohort::comm::nccl {

std::shared_ptr<DeviceRun> Session::MakeRun(const Signature& signature, absl::Duration timeout) {
  return std::make_shared<DeviceRun>(shared_from_this(), signature, timeout);
}

Work Session::Start(Request request, absl::Duration timeout) {
  auto run = MakeRun(request.signature, timeout);
  return Start(std::move(run), std::move(request));
}

Work Session::Start(std::shared_ptr<DeviceRun> run, Request request) {
  const std::lock_guard submitting(submit_mutex_);
  {
    const Lock lock(mutex_);
    absl::Status refused = RefusalLocked();
    if (!refused.ok()) {
      FinishLocked(*run, refused);
      return Work(refused);
    }
    run->peers_ = request.peers;
    if (request.collective()) {
      run->number_ = ++pulse_.started;
      pulse_.called[run->number_ % policy::kTold] = request.signature;
    }
    runs_.push_back(run);
    changed_.notify_all();
  }
  const absl::Status submitted = Submit(*run, request);
  const Lock lock(mutex_);
  // What NCCL was not told of, or cannot do, leaves this rank and its peers in different places of the stream.
  if (!submitted.ok()) FailLocked(submitted, /*tell=*/true);
  run->submitted_ = submitted.ok();
  return Work(std::move(run));
}

absl::Status Session::RefusalLocked() const {
  if (!failed_.ok()) return failed_;
  if (closing_) return absl::FailedPreconditionError("the device communicator is closed");
  if (!watch_->over()) return absl::OkStatus();
  return absl::UnavailableError(
      "a rank has closed its device communicator: nothing can be started in this group");
}

absl::Status Session::Submit(DeviceRun& run, Request& request) {
  COHORT_RETURN_IF_ERROR(api_.UseDevice(device_));
  Buffers& buffers = request.buffers;
  void* scratch = nullptr;
  if (request.plan.scratch > 0) {
    COHORT_ASSIGN_OR_RETURN(scratch, api_.Allocate(request.plan.scratch * SizeOf(buffers.dtype), stream_));
    buffers.scratch = static_cast<std::byte*>(scratch);
  }
  absl::Status status = Enqueue(run, request);
  // In the order of the stream: after what uses it, also where that is only a part. Pieces that cross use it beside the
  // stream, which goes on without them where the call fails.
  if (scratch != nullptr && request.plan.crosses) {
    const Lock lock(mutex_);
    run.scratch_ = scratch;
    if (run.done_) status.Update(FreeScratchLocked(run));
  } else if (scratch != nullptr) {
    status.Update(api_.Free(scratch, stream_));
  }
  COHORT_RETURN_IF_ERROR(status);
  COHORT_ASSIGN_OR_RETURN(const Event event, TakeEvent());
  {
    const Lock lock(mutex_);
    run.event_ = event;
  }
  return api_.Record(event, stream_);
}

absl::Status Session::Enqueue(DeviceRun& run, Request& request) {
  if (!request.collective()) return Group(request.messages, Team::kAll);
  Plan& plan = request.plan;
  COHORT_RETURN_IF_ERROR(Steps(plan.before, plan.team, request.buffers));
  if (plan.crosses) {
    Crossing crossing{.pieces = std::move(plan.pieces), .buffers = request.buffers};
    COHORT_ASSIGN_OR_RETURN(crossing.ready, TakeEvent());
    COHORT_RETURN_IF_ERROR(api_.Record(crossing.ready, stream_));
    crossing.number = ++crossings_;
    COHORT_RETURN_IF_ERROR(bridge_->MakeWait(stream_, crossing.number));
    const Lock lock(mutex_);
    run.crossing_ = std::move(crossing);
    changed_.notify_all();
  }
  return Steps(plan.after, plan.team, request.buffers);
}

absl::Status Session::Steps(const std::vector<Step>& steps, Team team, const Buffers& buffers) {
  const int own = team == Team::kInside ? hosts_->local_rank(rank_) : rank_;
  std::vector<Call> calls;
  for (const Step& step : steps) {
    if (step.copy) {
      COHORT_RETURN_IF_ERROR(api_.Copy(buffers.to(step.to), buffers.from(step.from),
                                       step.count * SizeOf(buffers.dtype), stream_));
      continue;
    }
    const bool reads = step.kind != CallKind::kRecv;
    // Only the root of a reduce has an output.
    const bool writes = step.kind != CallKind::kSend && (step.kind != CallKind::kReduce || step.peer == own);
    calls.push_back({.kind = step.kind,
                     .from = reads ? buffers.from(step.from) : nullptr,
                     .to = writes ? buffers.to(step.to) : nullptr,
                     .count = step.count,
                     .dtype = buffers.dtype,
                     .op = buffers.op,
                     .peer = step.peer});
  }
  return Group(calls, team);
}

absl::Status Session::Group(const std::vector<Call>& calls, Team team) {
  if (calls.empty()) return absl::OkStatus();
  Outcome outcome = Progress::kDone;
  {
    const std::lock_guard using_nccl(nccl_mutex_);
    if (handle(team) == nullptr)
      return absl::AbortedError("NCCL's communicator was aborted");  // failed_ says why
    COHORT_RETURN_IF_ERROR(api_.GroupStart());
    absl::Status status;
    for (const Call& call : calls) status.Update(api_.Enqueue(call, handle(team), stream_));
    // Also after an error, or the thread would stay in the group.
    outcome = api_.GroupEnd();
    COHORT_RETURN_IF_ERROR(status);
  }
  COHORT_RETURN_IF_ERROR(outcome.status());
  return *outcome == Progress::kPending ? WhilePending(team) : absl::OkStatus();
}

absl::Status Session::WhilePending(Team team) {
  // The watcher ends this: it knows deadlines and lost peers, and then the handle is gone.
  for (;;) {
    {
      const Lock lock(mutex_);
      COHORT_RETURN_IF_ERROR(failed_);
    }
    {
      const std::lock_guard using_nccl(nccl_mutex_);
      if (handle(team) == nullptr) return absl::AbortedError("NCCL's communicator was aborted");
      COHORT_ASSIGN_OR_RETURN(const Progress progress, api_.AsyncError(handle(team)));
      if (progress == Progress::kDone) return absl::OkStatus();
    }
    absl::SleepFor(policy::kPendingPause);
  }
}

absl::StatusOr<Event> Session::TakeEvent() {
  {
    const Lock lock(mutex_);
    if (!events_.empty()) {
      const Event event = events_.back();
      events_.pop_back();
      return event;
    }
  }
  return api_.CreateEvent();
}

}  // namespace cohort::comm::nccl
