// Sends and receives of one rank with one other, of elements and of datatypes.
#include <utility>

#include "absl/strings/str_format.h"
#include "comm/check.h"
#include "comm/group_communicator.h"
#include "comm/transport/shm/policy.h"

namespace cohort::comm {

Work GroupCommunicator::PointToPoint(bool sends, const void* send, void* recv, size_t count, DataType dtype,
                                     int peer, int tag, bool confirmed,
                                     std::shared_ptr<const Datatype> layout) {
  if (auto status = CheckBuffer(sends ? "send" : "recv", sends ? send : recv, count); !status.ok()) {
    return Work(status);
  }
  if (peer < 0 || peer >= size() || tag < 0 || count > SIZE_MAX / SizeOf(dtype)) {
    return Work(
        absl::InvalidArgumentError(absl::StrFormat("%s: %d elements, peer %d of a group of %d, tag %d",
                                                   sends ? "send" : "recv", count, peer, size(), tag)));
  }
  Schedule schedule;
  Step step;
  step.kind = sends ? StepKind::kSend : StepKind::kRecv;
  step.peer = peer;
  step.tag = static_cast<uint32_t>(tag);
  (sends ? step.source : step.destination) = {sends ? Buffer::kInput : Buffer::kOutput, 0, count};
  schedule.steps.push_back(step);
  schedule.first_before.assign(2, 0);
  Run::Arguments arguments;
  arguments.group = group_;
  arguments.schedule = std::make_shared<const Schedule>(std::move(schedule));
  arguments.signature = {Operation::kPointToPoint, dtype, ReduceOp::kSum, 0, 0, count};
  {
    const std::lock_guard lock(mutex_);
    const uint32_t number = (sends ? sent_ : received_)[{peer, tag}]++;
    arguments.key = {group_->context | kPointToPointContext, number, step.tag};
  }
  arguments.confirmed = confirmed;
  if (layout != nullptr) send = Lay(sends, send, std::move(layout), peer, &arguments);
  arguments.input = static_cast<const std::byte*>(send);
  arguments.output = static_cast<std::byte*>(recv);
  return Start(std::move(arguments));
}

Work GroupCommunicator::Send(const void* buffer, size_t count, DataType dtype, int peer, int tag) {
  return PointToPoint(/*sends=*/true, buffer, nullptr, count, dtype, peer, tag, /*confirmed=*/true);
}

Work GroupCommunicator::Recv(void* buffer, size_t count, DataType dtype, int peer, int tag) {
  return PointToPoint(/*sends=*/false, nullptr, buffer, count, dtype, peer, tag, /*confirmed=*/true);
}

Work GroupCommunicator::SendPlain(const void* buffer, size_t bytes, int peer) {
  return PointToPoint(/*sends=*/true, buffer, nullptr, bytes, DataType::kU8, peer, 0, /*confirmed=*/false);
}

Work GroupCommunicator::RecvPlain(void* buffer, size_t bytes, int peer) {
  return PointToPoint(/*sends=*/false, nullptr, buffer, bytes, DataType::kU8, peer, 0, /*confirmed=*/false);
}

const void* GroupCommunicator::Lay(bool sends, const void* send, std::shared_ptr<const Datatype> layout,
                                   int peer, Run::Arguments* arguments) {
  const BodyPath path = engine_->PathTo(group_->members[peer], layout->bytes());
  bool in_place = false;
  if (path == BodyPath::kRead) {
    const LayoutWay way =
        options_.layout_way ? *options_.layout_way : PriceLayout(*layout, MachineLayoutPrices()).way();
    // What takes more words than one message has does not say where its runs are.
    in_place = way == LayoutWay::kInPlace &&
               (!sends || layout->num_words() * sizeof(uint64_t) <= policy::kShmFragmentBytes);
  }
  if (sends && path == BodyPath::kDense) {
    // By the caller, before anybody waits for the engine.
    arguments->staging = staging_.Lend(layout->bytes());
    layout->Pack(send, arguments->staging.get());
    return arguments->staging.get();
  }
  arguments->layout = std::move(layout);
  arguments->in_place = in_place;
  return send;
}

Work GroupCommunicator::LaidOut(bool sends, const void* send, void* recv, size_t count, const Datatype& type,
                                int peer, int tag) {
  absl::StatusOr<Datatype> whole = count == 1 ? type : Datatype::Contiguous(count, type);
  if (!whole.ok()) return Work(whole.status());
  const size_t bytes = whole->bytes();
  if (auto status = CheckBuffer(sends ? "send" : "recv", sends ? send : recv, bytes); !status.ok()) {
    return Work(status);
  }
  if (!whole->dense()) {
    auto layout = std::make_shared<const Datatype>(*std::move(whole));
    return PointToPoint(sends, send, recv, bytes, DataType::kU8, peer, tag, /*confirmed=*/true,
                        std::move(layout));
  }
  const ptrdiff_t first = bytes > 0 ? whole->lower() : 0;
  if (send != nullptr) send = static_cast<const std::byte*>(send) + first;
  if (recv != nullptr) recv = static_cast<std::byte*>(recv) + first;
  return PointToPoint(sends, send, recv, bytes, DataType::kU8, peer, tag, /*confirmed=*/true);
}

Work GroupCommunicator::Send(const void* buffer, size_t count, const Datatype& type, int peer, int tag) {
  return LaidOut(/*sends=*/true, buffer, nullptr, count, type, peer, tag);
}

Work GroupCommunicator::Recv(void* buffer, size_t count, const Datatype& type, int peer, int tag) {
  return LaidOut(/*sends=*/false, nullptr, buffer, count, type, peer, tag);
}

}  // namespace cohort::comm
