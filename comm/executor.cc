#include "comm/executor.h"

#include <algorithm>
#include <cstring>
#include <set>

#include "comm/check.h"
#include "comm/copy.h"
#include "comm/engine.h"
#include "comm/policy.h"
#include "comm/ticks.h"

namespace cohort::comm {
namespace {

// Messages of a prelude are told by their tags from those that follow it.
constexpr uint32_t kPreludeTags = uint32_t{1} << 30;

}  // namespace

void ScratchMemory::Reserve(size_t bytes) {
  if (bytes <= bytes_) return;
  data_.reset();
  data_.reset(static_cast<std::byte*>(::operator new (bytes, std::align_val_t{policy::kScratchAlignment})));
  bytes_ = bytes;
}

void ScratchMemory::Free::operator()(std::byte* data) const {
  ::operator delete (data, std::align_val_t{policy::kScratchAlignment});
}

Run::Run(std::shared_ptr<Engine> engine, Arguments arguments)
    : engine_(std::move(engine)),
      arguments_(std::move(arguments)),
      schedule_(arguments_.schedule),
      input_(arguments_.input),
      output_(arguments_.output),
      element_bytes_(SizeOf(arguments_.signature.dtype)),
      first_tag_(0) {
  if (Prelude* prelude = arguments_.prelude.get(); prelude != nullptr) {
    input_ = reinterpret_cast<const std::byte*>(prelude->input.data());
    output_ = reinterpret_cast<std::byte*>(prelude->output.data());
    element_bytes_ = sizeof(uint64_t);
    first_tag_ = kPreludeTags;
  }
}

void Run::Renew(const std::byte* input, std::byte* output, int64_t began, int64_t timeout) {
  arguments_.input = input_ = input;
  arguments_.output = output_ = output;
  arguments_.began = began;
  arguments_.timeout = timeout;
  if (!status_.ok()) status_ = absl::OkStatus();
  done_.store(false, std::memory_order_relaxed);
}

size_t Run::ScratchBytes() const {
  const Schedule& schedule = *arguments_.schedule;
  return schedule.scratch_count * element_bytes_ + schedule.sums_count * sizeof(float) +
         (schedule.wire_count > 0 ? BytesOf({Buffer::kWire, 0, schedule.wire_count}) : 0);
}

bool Run::Late(int64_t now) const {
  return arguments_.timeout != INT64_MAX && now - NanosOfTicks(arguments_.began) >= arguments_.timeout;
}

bool Run::Done() { return done() || engine_->Poll(*this); }

absl::Status Run::Wait(absl::Time deadline) {
  if (!done()) COHORT_RETURN_IF_ERROR(engine_->Wait(*this, deadline));
  if (!status_.ok()) engine_->FileFlightRecord();
  return status_;
}

DataType Run::TypeOf(Buffer buffer) const {
  return buffer == Buffer::kSums ? DataType::kF32 : arguments_.signature.dtype;
}

size_t Run::BytesOf(const Slice& slice) const {
  if (slice.buffer == Buffer::kWire) return arguments_.codec->EncodedBytes(slice.count);
  return slice.count * (slice.buffer == Buffer::kSums ? sizeof(float) : element_bytes_);
}

std::byte* Run::At(const Slice& slice) const {
  const size_t before = BytesOf({slice.buffer, 0, slice.offset});
  switch (slice.buffer) {
    case Buffer::kScratch:
      return scratch_.data() + before;
    case Buffer::kWire:
      return wire_.data() + before;
    case Buffer::kSums:
      return sums_.data() + before;
    case Buffer::kInput:
    case Buffer::kOutput:
      break;
  }
  return output_ + before;
}

const std::byte* Run::From(const Slice& slice) const {
  return slice.buffer == Buffer::kInput ? input_ + slice.offset * element_bytes_ : At(slice);
}

void Run::Begin() {
  Prepare();
  Drain();
}

void Run::Prepare() {
  const Schedule& schedule = *schedule_;
  left_ = schedule.steps.size();
  scratch_.Reserve(schedule.scratch_count * element_bytes_);
  sums_.Reserve(schedule.sums_count * sizeof(float));
  if (schedule.wire_count > 0) wire_.Reserve(BytesOf({Buffer::kWire, 0, schedule.wire_count}));
  steps_.resize(left_);
  ready_.clear();
  ready_.reserve(left_);
  next_ready_ = 0;
  for (size_t i = 0; i < steps_.size(); ++i) {
    steps_[i].phase = Phase::kBlocked;
    steps_[i].blocked_by = schedule.steps[i].num_after;
    if (steps_[i].blocked_by == 0) ready_.push_back(static_cast<StepId>(i));
  }
}

// Steps end inside the calls that start others; a queue instead of recursion keeps the stack flat.
void Run::Drain() {
  if (draining_) return;
  draining_ = true;
  while (!done()) {
    if (next_ready_ < ready_.size()) {
      StartStep(ready_[next_ready_++]);
    } else if (left_ == 0 && first_tag_ == kPreludeTags) {
      FollowPrelude();
    } else {
      break;
    }
  }
  draining_ = false;
  if (!done() && left_ == 0) Finish(absl::OkStatus());
}

void Run::FollowPrelude() {
  auto schedule = arguments_.prelude->then(arguments_.prelude->output);
  if (!schedule.ok()) {
    Fail(schedule.status(), /*tell=*/true);
    return;
  }
  schedule_ = *std::move(schedule);
  input_ = arguments_.input;
  output_ = arguments_.output;
  element_bytes_ = SizeOf(arguments_.signature.dtype);
  first_tag_ = 0;
  prelude_steps_ = std::move(steps_);
  steps_.clear();
  Prepare();
}

void Run::StartStep(StepId id) {
  const Step& step = schedule_->steps[id];
  switch (step.kind) {
    case StepKind::kSend:
      PostSend(id);
      return;
    case StepKind::kRecv:
    case StepKind::kRecvReduce:
      PostRecv(id);
      return;
    case StepKind::kCopy:
      Copy(step);
      break;
    case StepKind::kReduce:
      Reduce(step);
      break;
  }
  StepOver(id);
}

// Of a large call, what no later step reads.
bool Run::WritesPastCaches(const Step& step) const {
  const size_t bytes = (schedule_->input_count + schedule_->output_count) * element_bytes_;
  return bytes >= policy::kPastCachesBytes && step.destination.buffer == Buffer::kOutput &&
         schedule_->Before(static_cast<StepId>(&step - schedule_->steps.data())).empty();
}

void Run::Copy(const Step& step) {
  const Codec* codec = arguments_.codec;
  const size_t count = step.source.count;
  const DataType from = TypeOf(step.source.buffer), to = TypeOf(step.destination.buffer);
  if (step.destination.buffer == Buffer::kWire) {
    const size_t first = step.destination.offset;
    float* residual = arguments_.residual == nullptr ? nullptr : arguments_.residual + first;
    codec->Encode(arguments_.encoding, From(step.source), from, count, first, residual, At(step.destination));
  } else if (step.source.buffer == Buffer::kWire) {
    codec->Decode(From(step.source), count, At(step.destination), to);
  } else if (from == DataType::kBF16 && to == DataType::kF32) {
    const auto* source = reinterpret_cast<const BFloat16*>(From(step.source));
    auto* destination = reinterpret_cast<float*>(At(step.destination));
    for (size_t i = 0; i < count; ++i) destination[i] = static_cast<float>(source[i]);
  } else if (from == DataType::kF32 && to == DataType::kBF16) {
    const auto* source = reinterpret_cast<const float*>(From(step.source));
    auto* destination = reinterpret_cast<BFloat16*>(At(step.destination));
    for (size_t i = 0; i < count; ++i) destination[i] = BFloat16(source[i]);
  } else if (WritesPastCaches(step)) {
    CopyBytesPastCaches(At(step.destination), From(step.source), BytesOf(step.source));
  } else {
    CopyBytes(At(step.destination), From(step.source), BytesOf(step.source));
  }
}

void Run::Reduce(const Step& step) {
  if (step.source.buffer == Buffer::kWire) {
    float* sums = reinterpret_cast<float*>(At(step.destination));
    arguments_.codec->DecodeAdd(From(step.source), step.source.count, sums);
    return;
  }
  arguments_.reduce(At(step.destination), From(step.source), At(step.destination), step.source.count);
}

void Run::PostSend(StepId id) {
  const Step& step = schedule_->steps[id];
  SendRequest& send = steps_[id].request.emplace<SendRequest>();
  send.peer = arguments_.group->members[step.peer];
  send.key = {arguments_.key.context, arguments_.key.sequence, first_tag_ + step.tag};
  send.signature = arguments_.signature;
  send.bytes = BytesOf(step.source);
  send.data = send.bytes == 0 ? nullptr : From(step.source);
  send.layout = arguments_.layout.get();
  send.in_place = arguments_.in_place;
  send.confirmed = arguments_.confirmed;
  send.owner = this;
  send.token = static_cast<uint32_t>(id);
  steps_[id].phase = Phase::kPosted;
  engine_->PostSend(send);
}

void Run::PostRecv(StepId id) {
  const Step& step = schedule_->steps[id];
  RecvRequest& recv = steps_[id].request.emplace<RecvRequest>();
  recv.peer = arguments_.group->members[step.peer];
  recv.key = {arguments_.key.context, arguments_.key.sequence, first_tag_ + step.tag};
  recv.signature = arguments_.signature;
  recv.bytes = BytesOf(step.destination);
  recv.destination = recv.bytes == 0 ? nullptr : At(step.destination);
  if (step.kind == StepKind::kRecvReduce) {
    recv.source = From(step.source);
    recv.reduce = arguments_.reduce;
    recv.element_bytes = element_bytes_;
  }
  recv.layout = arguments_.layout.get();
  recv.in_place = arguments_.in_place;
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
  for (const StepId next : schedule_->Before(id)) {
    if (--steps_[next].blocked_by == 0) ready_.push_back(next);
  }
}

void Run::Fail(const absl::Status& status, bool tell) {
  if (done()) return;
  engine_->OnRunFails(*this, status);
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
