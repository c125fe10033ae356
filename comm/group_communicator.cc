#include "comm/group_communicator.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/types/span.h"
#include "comm/check.h"
#include "comm/codec/quantized_collectives.h"
#include "comm/codec/schedules.h"
#include "comm/policy.h"

namespace cohort::comm {
namespace {

uint32_t Digest(absl::Span<const size_t> counts, int root) {
  uint64_t hash = 0xcbf29ce484222325ull + static_cast<uint64_t>(root);  // FNV-1a, by words
  for (const size_t count : counts) hash = (hash ^ count) * 0x100000001b3ull;
  return static_cast<uint32_t>(hash ^ hash >> 32);
}

absl::Status CheckBuffer(const char* what, const void* buffer, size_t count) {
  if (buffer != nullptr || count == 0) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("the ", what, " buffer of ", count, " elements is null"));
}

absl::Status NotInPlace(const char* operation, const void* send, const void* recv) {
  if (send != recv || send == nullptr) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(operation, " cannot work in place: send == recv"));
}

size_t Sum(absl::Span<const size_t> counts) {
  size_t sum = 0;
  for (const size_t count : counts) sum += count;
  return sum;
}

}  // namespace

GroupCommunicator::GroupCommunicator(std::shared_ptr<Engine> engine, std::shared_ptr<Group> group,
                                     CommunicatorOptions options, std::shared_ptr<const TuningInputs> tuning)
    : engine_(std::move(engine)),
      group_(std::move(group)),
      options_(std::move(options)),
      topology_(engine_->topology().Group(group_->members, group_->rank)) {
  SetTuning(std::move(tuning));
}

GroupCommunicator::~GroupCommunicator() { engine_->RemoveGroup(group_); }

void GroupCommunicator::SetTimes(Run::Arguments* arguments) const {
  arguments->began = NowNanos();
  const bool endless = options_.timeout == absl::InfiniteDuration();
  arguments->deadline = endless ? INT64_MAX : arguments->began + absl::ToInt64Nanoseconds(options_.timeout);
}

absl::Status GroupCommunicator::CheckCounts(const char* what, absl::Span<const size_t> counts,
                                            size_t element_bytes) const {
  if (static_cast<int>(counts.size()) != size()) {
    return absl::InvalidArgumentError(absl::StrFormat("%d %s for a group of %d ranks: one for each is needed",
                                                      counts.size(), what, size()));
  }
  size_t room = SIZE_MAX / element_bytes;
  for (const size_t count : counts) {
    if (count > room)
      return absl::InvalidArgumentError(absl::StrCat("the sum of the ", what, " is too large"));
    room -= count;
  }
  return absl::OkStatus();
}

absl::Status GroupCommunicator::CheckRoot(int root) const {
  if (root >= 0 && root < size()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrFormat("root %d of a group of %d ranks", root, size()));
}

std::pair<std::shared_ptr<const Schedule>, const char*> GroupCommunicator::ScheduleFor(Collective collective,
                                                                                       size_t element_bytes) {
  const std::lock_guard lock(mutex_);
  for (auto it = schedules_.begin(); it != schedules_.end(); ++it) {
    if (it->element_bytes != element_bytes || !(it->collective == collective)) continue;
    if (it != schedules_.begin()) schedules_.splice(schedules_.begin(), schedules_, it);
    return {it->schedule, it->algorithm};
  }
  Collective cut = collective;
  const Algorithm& algorithm = cut.quantized ? SelectQuantized(cut) : tuner_->Select(cut, element_bytes);
  auto schedule = std::make_shared<const Schedule>(algorithm.make(cut));
  schedules_.push_front({std::move(collective), element_bytes, schedule, algorithm.name});
  if (schedules_.size() > policy::kScheduleCache) schedules_.pop_back();
  return {std::move(schedule), algorithm.name};
}

Work GroupCommunicator::Collect(Collective collective, const void* send, void* recv, DataType dtype,
                                ReduceOp op, const QuantizedCall* quantized) {
  const size_t element_bytes = SizeOf(dtype);
  const size_t total = TotalCount(collective);
  if (total > SIZE_MAX / element_bytes) {
    return Work(absl::InvalidArgumentError(absl::StrCat(total, " elements are too many")));
  }
  collective.rank = rank();
  collective.size = size();
  collective.hosts = topology_.map();
  Run::Arguments arguments;
  arguments.signature = {collective.operation, dtype, op, 0, 0, total};
  if (collective.operation == Operation::kAllToAllV) {
    arguments.signature.count = 0;  // differs by rank; the sizes of the messages tell, or the digest does
    if (collective.matrix != nullptr) arguments.signature.digest = Digest(*collective.matrix, 1);
  } else {
    arguments.signature.digest = Digest(collective.counts, collective.root);
  }
  std::tie(arguments.schedule, arguments.algorithm) = ScheduleFor(std::move(collective), element_bytes);
  arguments.group = group_;
  arguments.input = static_cast<const std::byte*>(send);
  arguments.output = static_cast<std::byte*>(recv);
  arguments.reduce = FindReduce(dtype, op);
  SetTimes(&arguments);
  if (quantized != nullptr) {
    if (auto status = AddCodec(*quantized, &arguments); !status.ok()) return Work(status);
  }
  return Work(std::static_pointer_cast<WorkState>(engine_->Start(std::move(arguments))));
}

Work GroupCommunicator::AllReduce(const void* send, void* recv, size_t count, DataType dtype, ReduceOp op) {
  if (auto status = CheckBuffer("send", send, count); !status.ok()) return Work(status);
  if (auto status = CheckBuffer("recv", recv, count); !status.ok()) return Work(status);
  Collective collective;
  collective.operation = Operation::kAllReduce;
  collective.count = count;
  collective.in_place = send == recv;
  return Collect(std::move(collective), send, recv, dtype, op);
}

Work GroupCommunicator::ReduceScatter(const void* send, void* recv, absl::Span<const size_t> counts,
                                      DataType dtype, ReduceOp op) {
  if (auto status = CheckCounts("counts", counts, SizeOf(dtype)); !status.ok()) return Work(status);
  if (auto status = CheckBuffer("send", send, Sum(counts)); !status.ok()) return Work(status);
  if (auto status = CheckBuffer("recv", recv, counts[rank()]); !status.ok()) return Work(status);
  if (auto status = NotInPlace("reduce-scatter", send, recv); !status.ok()) return Work(status);
  Collective collective;
  collective.operation = Operation::kReduceScatter;
  collective.counts.assign(counts.begin(), counts.end());
  return Collect(std::move(collective), send, recv, dtype, op);
}

Work GroupCommunicator::AllGather(const void* send, void* recv, absl::Span<const size_t> counts,
                                  DataType dtype) {
  if (auto status = CheckCounts("counts", counts, SizeOf(dtype)); !status.ok()) return Work(status);
  if (auto status = CheckBuffer("send", send, counts[rank()]); !status.ok()) return Work(status);
  if (auto status = CheckBuffer("recv", recv, Sum(counts)); !status.ok()) return Work(status);
  Collective collective;
  collective.operation = Operation::kAllGather;
  collective.counts.assign(counts.begin(), counts.end());
  const size_t before = Sum(counts.subspan(0, rank()));
  collective.in_place =
      recv != nullptr && send == static_cast<const std::byte*>(recv) + before * SizeOf(dtype);
  return Collect(std::move(collective), send, recv, dtype, ReduceOp::kSum);
}

Work GroupCommunicator::Broadcast(void* buffer, size_t count, DataType dtype, int root) {
  if (auto status = CheckBuffer("broadcast", buffer, count); !status.ok()) return Work(status);
  if (auto status = CheckRoot(root); !status.ok()) return Work(status);
  Collective collective;
  collective.operation = Operation::kBroadcast;
  collective.count = count;
  collective.root = root;
  return Collect(std::move(collective), nullptr, buffer, dtype, ReduceOp::kSum);
}

Work GroupCommunicator::Reduce(const void* send, void* recv, size_t count, DataType dtype, int root,
                               ReduceOp op) {
  if (auto status = CheckRoot(root); !status.ok()) return Work(status);
  const bool is_root = rank() == root;
  if (auto status = CheckBuffer("send", send, count); !status.ok()) return Work(status);
  if (auto status = CheckBuffer("recv", recv, is_root ? count : 0); !status.ok()) return Work(status);
  Collective collective;
  collective.operation = Operation::kReduce;
  collective.count = count;
  collective.root = root;
  collective.in_place = is_root && send == recv;
  return Collect(std::move(collective), send, recv, dtype, op);
}

Work GroupCommunicator::Gather(const void* send, void* recv, absl::Span<const size_t> counts, DataType dtype,
                               int root) {
  if (auto status = CheckRoot(root); !status.ok()) return Work(status);
  if (auto status = CheckCounts("counts", counts, SizeOf(dtype)); !status.ok()) return Work(status);
  const bool is_root = rank() == root;
  if (auto status = CheckBuffer("send", send, counts[rank()]); !status.ok()) return Work(status);
  if (auto status = CheckBuffer("recv", recv, is_root ? Sum(counts) : 0); !status.ok()) return Work(status);
  Collective collective;
  collective.operation = Operation::kGather;
  collective.counts.assign(counts.begin(), counts.end());
  collective.root = root;
  const size_t before = Sum(counts.subspan(0, rank()));
  collective.in_place =
      is_root && recv != nullptr && send == static_cast<const std::byte*>(recv) + before * SizeOf(dtype);
  return Collect(std::move(collective), send, recv, dtype, ReduceOp::kSum);
}

Work GroupCommunicator::Scatter(const void* send, void* recv, absl::Span<const size_t> counts, DataType dtype,
                                int root) {
  if (auto status = CheckRoot(root); !status.ok()) return Work(status);
  if (auto status = CheckCounts("counts", counts, SizeOf(dtype)); !status.ok()) return Work(status);
  const bool is_root = rank() == root;
  if (auto status = CheckBuffer("send", send, is_root ? Sum(counts) : 0); !status.ok()) return Work(status);
  if (auto status = CheckBuffer("recv", recv, counts[rank()]); !status.ok()) return Work(status);
  Collective collective;
  collective.operation = Operation::kScatter;
  collective.counts.assign(counts.begin(), counts.end());
  collective.root = root;
  const size_t before = Sum(counts.subspan(0, rank()));
  collective.in_place =
      is_root && send != nullptr && recv == static_cast<const std::byte*>(send) + before * SizeOf(dtype);
  return Collect(std::move(collective), send, recv, dtype, ReduceOp::kSum);
}

Work GroupCommunicator::AllToAll(const void* send, void* recv, size_t count, DataType dtype) {
  if (count > SIZE_MAX / SizeOf(dtype) / static_cast<size_t>(size())) {
    return Work(absl::InvalidArgumentError(absl::StrCat(count, " elements for each rank are too many")));
  }
  if (auto status = CheckBuffer("send", send, count); !status.ok()) return Work(status);
  if (auto status = CheckBuffer("recv", recv, count); !status.ok()) return Work(status);
  if (auto status = NotInPlace("all-to-all", send, recv); !status.ok()) return Work(status);
  Collective collective;
  collective.operation = Operation::kAllToAll;
  collective.counts.assign(size(), count);
  collective.recv_counts = collective.counts;
  return Collect(std::move(collective), send, recv, dtype, ReduceOp::kSum);
}

Work GroupCommunicator::AllToAllV(const void* send, absl::Span<const size_t> send_counts, void* recv,
                                  absl::Span<const size_t> recv_counts, DataType dtype) {
  if (auto status = CheckCounts("send counts", send_counts, SizeOf(dtype)); !status.ok()) return Work(status);
  if (auto status = CheckCounts("recv counts", recv_counts, SizeOf(dtype)); !status.ok()) return Work(status);
  if (auto status = CheckBuffer("send", send, Sum(send_counts)); !status.ok()) return Work(status);
  if (auto status = CheckBuffer("recv", recv, Sum(recv_counts)); !status.ok()) return Work(status);
  if (auto status = NotInPlace("all-to-all-v", send, recv); !status.ok()) return Work(status);
  if (send_counts[rank()] != recv_counts[rank()]) {
    return Work(
        absl::InvalidArgumentError(absl::StrFormat("rank %d would send itself %d elements and receive %d",
                                                   rank(), send_counts[rank()], recv_counts[rank()])));
  }
  Collective collective;
  collective.operation = Operation::kAllToAllV;
  collective.counts.assign(send_counts.begin(), send_counts.end());
  collective.recv_counts.assign(recv_counts.begin(), recv_counts.end());
  return Collect(std::move(collective), send, recv, dtype, ReduceOp::kSum);
}

Work GroupCommunicator::AllToAllMatrix(const void* send, void* recv, absl::Span<const size_t> counts,
                                       DataType dtype) {
  const size_t ranks = static_cast<size_t>(size());
  if (counts.size() != ranks * ranks) {
    return Work(absl::InvalidArgumentError(
        absl::StrFormat("%d counts for a group of %d ranks: one for each pair is needed, %d", counts.size(),
                        size(), ranks * ranks)));
  }
  Collective collective;
  collective.operation = Operation::kAllToAllV;
  for (size_t peer = 0; peer < ranks; ++peer) {
    collective.counts.push_back(counts[rank() * ranks + peer]);
    collective.recv_counts.push_back(counts[peer * ranks + rank()]);
    // Every row: ranks pass on what is not their own.
    const auto row = counts.subspan(peer * ranks, ranks);
    if (auto status = CheckCounts("counts of a rank", row, SizeOf(dtype)); !status.ok()) return Work(status);
  }
  if (auto status = CheckCounts("recv counts", collective.recv_counts, SizeOf(dtype)); !status.ok()) {
    return Work(status);
  }
  if (auto status = CheckBuffer("send", send, Sum(collective.counts)); !status.ok()) return Work(status);
  if (auto status = CheckBuffer("recv", recv, Sum(collective.recv_counts)); !status.ok()) return Work(status);
  if (auto status = NotInPlace("all-to-all-v", send, recv); !status.ok()) return Work(status);
  collective.matrix = std::make_shared<const std::vector<size_t>>(counts.begin(), counts.end());
  return Collect(std::move(collective), send, recv, dtype, ReduceOp::kSum);
}

Work GroupCommunicator::Barrier() {
  Collective collective;
  collective.operation = Operation::kBarrier;
  return Collect(std::move(collective), nullptr, nullptr, DataType::kU8, ReduceOp::kSum);
}

Work GroupCommunicator::Quantized(const QuantizedCall& call) {
  Collective collective;
  collective.operation = call.operation;
  collective.quantized = true;
  collective.count = call.operation == Operation::kAllReduce ? call.count : 0;
  collective.counts.assign(call.counts.begin(), call.counts.end());
  collective.recv_counts.assign(call.recv_counts.begin(), call.recv_counts.end());
  const bool two_sided = call.operation == Operation::kAllToAll || call.operation == Operation::kAllToAllV;
  if (call.operation != Operation::kAllReduce) {
    if (auto status = CheckCounts("counts", call.counts, SizeOf(call.dtype)); !status.ok())
      return Work(status);
  }
  if (two_sided) {
    const auto& in = call.recv_counts;
    if (auto status = CheckCounts("recv counts", in, SizeOf(call.dtype)); !status.ok()) return Work(status);
    if (in[rank()] != call.counts[rank()]) {
      return Work(
          absl::InvalidArgumentError("a rank would send itself another number of elements than receive"));
    }
  }
  const size_t own = call.operation == Operation::kAllReduce ? call.count : call.counts[rank()];
  const size_t sent = call.operation == Operation::kAllReduce || call.operation == Operation::kAllGather
                          ? own
                          : Sum(call.counts);
  const size_t got = two_sided                                 ? Sum(call.recv_counts)
                     : call.operation == Operation::kAllGather ? Sum(call.counts)
                                                               : own;
  if (auto status = CheckBuffer("send", call.send, sent); !status.ok()) return Work(status);
  if (auto status = CheckBuffer("recv", call.recv, got); !status.ok()) return Work(status);
  const auto* recv = static_cast<const std::byte*>(call.recv);
  if (call.operation == Operation::kAllGather) {
    const size_t before = Sum(call.counts.subspan(0, rank())) * SizeOf(call.dtype);
    collective.in_place = recv != nullptr && call.send == recv + before;
  } else if (call.operation == Operation::kAllReduce) {
    collective.in_place = call.send == call.recv;
  } else if (auto status = NotInPlace(Name(call.operation), call.send, call.recv); !status.ok()) {
    return Work(status);
  }
  return Collect(std::move(collective), call.send, call.recv, call.dtype, ReduceOp::kSum, &call);
}

Work GroupCommunicator::PointToPoint(bool sends, const void* send, void* recv, size_t count, DataType dtype,
                                     int peer, int tag, std::shared_ptr<const Datatype> layout) {
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
  arguments.confirmed = true;
  if (layout != nullptr) send = Lay(sends, send, std::move(layout), peer, &arguments);
  arguments.input = static_cast<const std::byte*>(send);
  arguments.output = static_cast<std::byte*>(recv);
  SetTimes(&arguments);
  return Work(std::static_pointer_cast<WorkState>(engine_->Start(std::move(arguments))));
}

Work GroupCommunicator::Send(const void* buffer, size_t count, DataType dtype, int peer, int tag) {
  return PointToPoint(/*sends=*/true, buffer, nullptr, count, dtype, peer, tag);
}

Work GroupCommunicator::Recv(void* buffer, size_t count, DataType dtype, int peer, int tag) {
  return PointToPoint(/*sends=*/false, nullptr, buffer, count, dtype, peer, tag);
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
               (!sends || layout->num_words() * sizeof(uint64_t) <= policy::kShmEagerBytes);
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
    return PointToPoint(sends, send, recv, bytes, DataType::kU8, peer, tag, std::move(layout));
  }
  const ptrdiff_t first = bytes > 0 ? whole->lower() : 0;
  if (send != nullptr) send = static_cast<const std::byte*>(send) + first;
  if (recv != nullptr) recv = static_cast<std::byte*>(recv) + first;
  return PointToPoint(sends, send, recv, bytes, DataType::kU8, peer, tag);
}

Work GroupCommunicator::Send(const void* buffer, size_t count, const Datatype& type, int peer, int tag) {
  return LaidOut(/*sends=*/true, buffer, nullptr, count, type, peer, tag);
}

Work GroupCommunicator::Recv(void* buffer, size_t count, const Datatype& type, int peer, int tag) {
  return LaidOut(/*sends=*/false, nullptr, buffer, count, type, peer, tag);
}

}  // namespace cohort::comm
