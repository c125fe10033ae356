#include "comm/executor.h"

#include <algorithm>
#include <cstring>
#include <set>

#include "comm/check.h"
#include "comm/engine.h"

namespace cohort::comm {

Run::Run(std::shared_ptr<Engine> engine, Arguments arguments)
    : engine_(std::move(engine)),
      arguments_(std::move(arguments)),
      element_bytes_(SizeOf(arguments_.signature.dtype)) {}

bool Run::Done() { return done() || engine_->Poll(*this); }

absl::Status Run::Wait(absl::Time deadline) {
  if (!done()) COHORT_RETURN_IF_ERROR(engine_->Wait(*this, deadline));
  return status_;
}

std::byte* Run::At(const Slice& slice) const {
  std::byte* base =
      slice.buffer == Buffer::kScratch ? const_cast<std::byte*>(scratch_.data()) : arguments_.output;
  return base + slice.offset * element_bytes_;
}

const std::byte* Run::From(const Slice& slice) const {
  return slice.buffer == Buffer::kInput ? arguments_.input + slice.offset * element_bytes_ : At(slice);
}

void Run::Begin() {
  const Schedule& schedule = *arguments_.schedule;
  left_ = schedule.steps.size();
  if (left_ == 0) {
    Finish(absl::OkStatus());
    return;
  }
  scratch_.resize(schedule.scratch_count * element_bytes_);
  steps_.resize(left_);
  ready_.reserve(left_);
  for (size_t i = 0; i < steps_.size(); ++i) {
    steps_[i].blocked_by = schedule.steps[i].num_after;
    if (steps_[i].blocked_by == 0) ready_.push_back(static_cast<StepId>(i));
  }
  Drain();
}

// Steps end inside the calls that start others; a queue instead of recursion keeps the stack flat.
void Run::Drain() {
  if (draining_) return;
  draining_ = true;
  while (next_ready_ < ready_.size() && !done()) StartStep(ready_[next_ready_++]);
  draining_ = false;
  if (!done() && left_ == 0) Finish(absl::OkStatus());
}

void Run::StartStep(StepId id) {
  const Step& step = arguments_.schedule->steps[id];
  switch (step.kind) {
    case StepKind::kSend:
      PostSend(id);
      return;
    case StepKind::kRecv:
    case StepKind::kRecvReduce:
      PostRecv(id);
      return;
    case StepKind::kCopy:
      std::memmove(At(step.destination), From(step.source), step.source.count * element_bytes_);
      break;
    case StepKind::kReduce:
      arguments_.reduce(At(step.destination), From(step.source), At(step.destination), step.source.count);
      break;
  }
  StepOver(id);
}

void Run::PostSend(StepId id) {
  const Step& step = arguments_.schedule->steps[id];
  SendRequest& send = steps_[id].request.emplace<SendRequest>();
  send.peer = arguments_.group->members[step.peer];
  send.key = {arguments_.key.context, arguments_.key.sequence, step.tag};
  send.signature = arguments_.signature;
  send.bytes = step.source.count * element_bytes_;
  send.data = send.bytes == 0 ? nullptr : From(step.source);
  send.confirmed = arguments_.confirmed;
  send.owner = this;
  send.token = static_cast<uint32_t>(id);
  steps_[id].phase = Phase::kPosted;
  engine_->PostSend(send);
}

void Run::PostRecv(StepId id) {
  const Step& step = arguments_.schedule->steps[id];
  RecvRequest& recv = steps_[id].request.emplace<RecvRequest>();
  recv.peer = arguments_.group->members[step.peer];
  recv.key = {arguments_.key.context, arguments_.key.sequence, step.tag};
  recv.signature = arguments_.signature;
  recv.bytes = step.destination.count * element_bytes_;
  recv.destination = recv.bytes == 0 ? nullptr : At(step.destination);
  if (step.kind == StepKind::kRecvReduce) {
    recv.source = From(step.source);
    recv.reduce = arguments_.reduce;
    recv.element_bytes = element_bytes_;
  }
  recv.owner = this;
  recv.token = static_cast<uint32_t>(id);
  steps_[id].phase = Phase::kPosted;
  engine_->PostRecv(recv);
}

void Run::OnRequestDone(uint32_t token, const absl::Status& status) {
  if (done()) return;
  if (!status.ok()) {
    // This request is over; Fail takes back the others.
    steps_[token].phase = Phase::kOver;
    Fail(status, /*tell=*/true);
    return;
  }
  StepOver(static_cast<StepId>(token));
  Drain();
}

void Run::StepOver(StepId id) {
  steps_[id].phase = Phase::kOver;
  --left_;
  for (const StepId next : arguments_.schedule->Before(id)) {
    if (--steps_[next].blocked_by == 0) ready_.push_back(next);
  }
}

void Run::Fail(const absl::Status& status, bool tell) {
  if (done()) return;
  for (StepState& state : steps_) {
    if (state.phase != Phase::kPosted) continue;
    state.phase = Phase::kOver;
    if (auto* send = std::get_if<SendRequest>(&state.request)) engine_->CancelSend(*send);
    if (auto* recv = std::get_if<RecvRequest>(&state.request)) engine_->CancelRecv(*recv);
  }
  if (tell) engine_->TellGroup(*this, status);
  Finish(status);
}

void Run::Finish(const absl::Status& status) {
  status_ = status;
  done_.store(true, std::memory_order_seq_cst);
  engine_->OnRunDone(*this);
}

bool Run::WaitsFor(int peer) const {
  for (const StepState& state : steps_) {
    if (state.phase != Phase::kPosted) continue;
    const auto* send = std::get_if<SendRequest>(&state.request);
    const auto* recv = std::get_if<RecvRequest>(&state.request);
    if ((send != nullptr && send->peer == peer) || (recv != nullptr && recv->peer == peer)) return true;
  }
  return false;
}

std::vector<int> Run::AwaitedPeers() const {
  std::set<int> peers;
  for (const StepState& state : steps_) {
    if (state.phase != Phase::kPosted) continue;
    if (const auto* send = std::get_if<SendRequest>(&state.request)) peers.insert(send->peer);
    if (const auto* recv = std::get_if<RecvRequest>(&state.request)) peers.insert(recv->peer);
  }
  return {peers.begin(), peers.end()};
}

}  // namespace cohort::comm
