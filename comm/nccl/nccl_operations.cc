// The operations of a device communicator: arguments checked, as over host memory, and made a plan.
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "comm/check.h"
#include "comm/nccl/nccl_communicator.h"

namespace cohort::comm::nccl {
namespace {

size_t Sum(absl::Span<const size_t> counts) {
  return std::accumulate(counts.begin(), counts.end(), size_t{0});
}

absl::Status CheckBuffer(const char* what, const void* buffer, size_t count) {
  if (buffer != nullptr || count == 0) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("the ", what, " buffer of ", count, " elements is null"));
}

absl::Status CheckCounts(const char* what, absl::Span<const size_t> counts, int ranks, DataType dtype) {
  if (static_cast<int>(counts.size()) != ranks) {
    return absl::InvalidArgumentError(
        absl::StrFormat("%d %s for a group of %d ranks: one for each is needed", counts.size(), what, ranks));
  }
  size_t room = SIZE_MAX / SizeOf(dtype);
  for (const size_t count : counts) {
    if (count > room)
      return absl::InvalidArgumentError(absl::StrCat("the sum of the ", what, " is too large"));
    room -= count;
  }
  return absl::OkStatus();
}

absl::Status CheckRank(const char* what, int rank, int ranks) {
  if (rank >= 0 && rank < ranks) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrFormat("%s %d of a group of %d ranks", what, rank, ranks));
}

absl::Status CheckApart(const char* operation, const void* send, const void* recv) {
  if (send != recv || send == nullptr) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(operation, " cannot work in place: send == recv"));
}

// The first that is not OK.
absl::Status First(std::initializer_list<absl::Status> all) {
  for (const absl::Status& status : all) {
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

// FNV-1a of what must be equal on all ranks besides the total.
uint32_t Digest(const Collective& call) {
  uint32_t digest = 2166136261u;
  const auto add = [&](uint64_t value) {
    for (int byte = 0; byte < 8; ++byte)
      digest = (digest ^ static_cast<uint8_t>(value >> 8 * byte)) * 16777619u;
  };
  add(static_cast<uint64_t>(call.root));
  const bool own_counts = call.operation == Operation::kAllToAllV;
  for (const size_t count : call.matrix != nullptr ? *call.matrix
                            : own_counts           ? std::vector<size_t>()
                                                   : call.counts) {
    add(count);
  }
  return digest;
}

bool IsPart(const void* part, const void* whole, absl::Span<const size_t> counts, int rank, DataType dtype) {
  if (part == nullptr || whole == nullptr) return false;
  return part == static_cast<const std::byte*>(whole) + Sum(counts.subspan(0, rank)) * SizeOf(dtype);
}

std::vector<size_t> Vector(absl::Span<const size_t> counts) { return {counts.begin(), counts.end()}; }

absl::Status NotOnDevices(const char* what, const char* instead) {
  return absl::UnimplementedError(absl::StrCat("a device communicator has no ", what, ": ", instead));
}

}  // namespace

Collective NcclCommunicator::Describe(Operation operation) const {
  Collective call;
  call.operation = operation;
  call.rank = rank();
  call.size = size();
  call.hosts = topology().map();
  return call;
}

Work NcclCommunicator::Collect(Collective call, DataType dtype, ReduceOp op, const void* send, void* recv) {
  const Way way = WayOf(call.operation, TotalCount(call) * SizeOf(dtype));
  return Collect(std::move(call), dtype, op, send, recv, way);
}

Work NcclCommunicator::Collect(Collective call, DataType dtype, ReduceOp op, const void* send, void* recv,
                               Way way) {
  auto session = Usable();
  if (!session.ok()) return Work(session.status());
  Request request;
  request.plan =
      way == Way::kNccl ? FlatPlan(call) : HierarchicalPlan(call, (*session)->piece_bytes() / SizeOf(dtype));
  request.signature = {call.operation,
                       dtype,
                       op,
                       0,
                       Digest(call),
                       call.operation == Operation::kAllToAllV ? 0 : TotalCount(call)};
  request.buffers = {static_cast<const std::byte*>(send), static_cast<std::byte*>(recv), nullptr, dtype, op};
  return (*session)->Start(std::move(request), timeout());
}

Work NcclCommunicator::AllReduce(const void* send, void* recv, size_t count, DataType dtype, ReduceOp op) {
  if (auto bad = First({CheckBuffer("send", send, count), CheckBuffer("recv", recv, count)}); !bad.ok())
    return Work(bad);
  Collective call = Describe(Operation::kAllReduce);
  call.count = count;
  call.in_place = send == recv;
  return Collect(std::move(call), dtype, op, send, recv);
}

Work NcclCommunicator::ReduceScatter(const void* send, void* recv, absl::Span<const size_t> counts,
                                     DataType dtype, ReduceOp op) {
  if (auto bad = CheckCounts("counts", counts, size(), dtype); !bad.ok()) return Work(bad);
  if (auto bad = First({CheckBuffer("send", send, Sum(counts)), CheckBuffer("recv", recv, counts[rank()]),
                        CheckApart("reduce-scatter", send, recv)});
      !bad.ok()) {
    return Work(bad);
  }
  Collective call = Describe(Operation::kReduceScatter);
  call.counts = Vector(counts);
  return Collect(std::move(call), dtype, op, send, recv);
}

Work NcclCommunicator::AllGather(const void* send, void* recv, absl::Span<const size_t> counts,
                                 DataType dtype) {
  if (auto bad = CheckCounts("counts", counts, size(), dtype); !bad.ok()) return Work(bad);
  if (auto bad = First({CheckBuffer("send", send, counts[rank()]), CheckBuffer("recv", recv, Sum(counts))});
      !bad.ok()) {
    return Work(bad);
  }
  Collective call = Describe(Operation::kAllGather);
  call.counts = Vector(counts);
  call.in_place = IsPart(send, recv, counts, rank(), dtype);
  return Collect(std::move(call), dtype, ReduceOp::kSum, send, recv);
}

Work NcclCommunicator::Broadcast(void* buffer, size_t count, DataType dtype, int root) {
  if (auto bad = First({CheckRank("root", root, size()), CheckBuffer("broadcast", buffer, count)}); !bad.ok())
    return Work(bad);
  Collective call = Describe(Operation::kBroadcast);
  call.count = count;
  call.root = root;
  return Collect(std::move(call), dtype, ReduceOp::kSum, nullptr, buffer);
}

Work NcclCommunicator::Reduce(const void* send, void* recv, size_t count, DataType dtype, int root,
                              ReduceOp op) {
  if (auto bad = First({CheckRank("root", root, size()), CheckBuffer("send", send, count),
                        CheckBuffer("recv", recv, rank() == root ? count : 0)});
      !bad.ok()) {
    return Work(bad);
  }
  Collective call = Describe(Operation::kReduce);
  call.count = count;
  call.root = root;
  call.in_place = rank() == root && send == recv;
  return Collect(std::move(call), dtype, op, send, rank() == root ? recv : nullptr);
}

Work NcclCommunicator::Gather(const void* send, void* recv, absl::Span<const size_t> counts, DataType dtype,
                              int root) {
  if (auto bad = First({CheckRank("root", root, size()), CheckCounts("counts", counts, size(), dtype)});
      !bad.ok()) {
    return Work(bad);
  }
  const bool is_root = rank() == root;
  if (auto bad = First(
          {CheckBuffer("send", send, counts[rank()]), CheckBuffer("recv", recv, is_root ? Sum(counts) : 0)});
      !bad.ok()) {
    return Work(bad);
  }
  Collective call = Describe(Operation::kGather);
  call.counts = Vector(counts);
  call.root = root;
  call.in_place = is_root && IsPart(send, recv, counts, rank(), dtype);
  return Collect(std::move(call), dtype, ReduceOp::kSum, send, recv);
}

Work NcclCommunicator::Scatter(const void* send, void* recv, absl::Span<const size_t> counts, DataType dtype,
                               int root) {
  if (auto bad = First({CheckRank("root", root, size()), CheckCounts("counts", counts, size(), dtype)});
      !bad.ok()) {
    return Work(bad);
  }
  const bool is_root = rank() == root;
  if (auto bad = First(
          {CheckBuffer("send", send, is_root ? Sum(counts) : 0), CheckBuffer("recv", recv, counts[rank()])});
      !bad.ok()) {
    return Work(bad);
  }
  Collective call = Describe(Operation::kScatter);
  call.counts = Vector(counts);
  call.root = root;
  call.in_place = is_root && IsPart(recv, send, counts, rank(), dtype);
  return Collect(std::move(call), dtype, ReduceOp::kSum, send, recv);
}

Work NcclCommunicator::AllToAll(const void* send, void* recv, size_t count, DataType dtype) {
  const std::vector<size_t> counts(size(), count);
  if (auto bad = First({CheckCounts("counts", counts, size(), dtype), CheckBuffer("send", send, count),
                        CheckBuffer("recv", recv, count), CheckApart("all-to-all", send, recv)});
      !bad.ok()) {
    return Work(bad);
  }
  Collective call = Describe(Operation::kAllToAll);
  call.counts = call.recv_counts = counts;
  return Collect(std::move(call), dtype, ReduceOp::kSum, send, recv);
}

Work NcclCommunicator::AllToAllV(const void* send, absl::Span<const size_t> send_counts, void* recv,
                                 absl::Span<const size_t> recv_counts, DataType dtype) {
  if (auto bad = First({CheckCounts("send counts", send_counts, size(), dtype),
                        CheckCounts("recv counts", recv_counts, size(), dtype)});
      !bad.ok()) {
    return Work(bad);
  }
  if (auto bad = First({CheckBuffer("send", send, Sum(send_counts)),
                        CheckBuffer("recv", recv, Sum(recv_counts)), CheckApart("all-to-all-v", send, recv)});
      !bad.ok()) {
    return Work(bad);
  }
  if (send_counts[rank()] != recv_counts[rank()]) {
    return Work(
        absl::InvalidArgumentError(absl::StrFormat("rank %d would send itself %d elements and receive %d",
                                                   rank(), send_counts[rank()], recv_counts[rank()])));
  }
  Collective call = Describe(Operation::kAllToAllV);
  call.counts = Vector(send_counts);
  call.recv_counts = Vector(recv_counts);
  return Collect(std::move(call), dtype, ReduceOp::kSum, send, recv);
}

Work NcclCommunicator::AllToAllMatrix(const void* send, void* recv, absl::Span<const size_t> counts,
                                      DataType dtype) {
  const size_t ranks = static_cast<size_t>(size());
  if (counts.size() != ranks * ranks) {
    return Work(absl::InvalidArgumentError(
        absl::StrFormat("%d counts for a group of %d ranks: one for each pair is needed, %d", counts.size(),
                        size(), ranks * ranks)));
  }
  Collective call = Describe(Operation::kAllToAllV);
  call.counts = Vector(counts.subspan(rank() * ranks, ranks));
  for (size_t peer = 0; peer < ranks; ++peer) call.recv_counts.push_back(counts[peer * ranks + rank()]);
  if (auto bad = First({CheckCounts("send counts", call.counts, size(), dtype),
                        CheckCounts("recv counts", call.recv_counts, size(), dtype)});
      !bad.ok()) {
    return Work(bad);
  }
  if (auto bad =
          First({CheckBuffer("send", send, Sum(call.counts)),
                 CheckBuffer("recv", recv, Sum(call.recv_counts)), CheckApart("all-to-all-v", send, recv)});
      !bad.ok()) {
    return Work(bad);
  }
  call.matrix = std::make_shared<const std::vector<size_t>>(counts.begin(), counts.end());
  return Collect(std::move(call), dtype, ReduceOp::kSum, send, recv);
}

Work NcclCommunicator::Barrier() {
  return Collect(Describe(Operation::kBarrier), DataType::kU8, ReduceOp::kMax, nullptr, nullptr);
}

// ---- Messages ----

Work NcclCommunicator::Send(const void* buffer, size_t count, DataType dtype, int peer, int tag) {
  return Message(true, buffer, nullptr, count, dtype, peer, tag);
}

Work NcclCommunicator::Recv(void* buffer, size_t count, DataType dtype, int peer, int tag) {
  return Message(false, nullptr, buffer, count, dtype, peer, tag);
}

Work NcclCommunicator::Message(bool sends, const void* send, void* recv, size_t count, DataType dtype,
                               int peer, int tag) {
  if (auto bad = First({CheckRank("peer", peer, size()),
                        CheckBuffer(sends ? "send" : "recv", sends ? send : recv, count)});
      !bad.ok()) {
    return Work(bad);
  }
  if (tag != 0) {
    return Work(absl::InvalidArgumentError(absl::StrCat(
        "tag ", tag, ": messages between devices match in the order of the calls, so their tag is 0")));
  }
  const Call message{
      sends ? CallKind::kSend : CallKind::kRecv, send, recv, count, dtype, ReduceOp::kSum, peer};
  {
    const std::lock_guard lock(mutex_);
    if (group_ != nullptr) {
      if (count > 0) group_request_.messages.push_back(message);
      group_request_.peers.push_back(members()[peer]);
      return Work(group_);
    }
  }
  if (peer == rank()) {
    return Work(absl::InvalidArgumentError(
        "a message of a device to itself needs its send and its receive in one group: BeginGroup"));
  }
  auto session = Usable();
  if (!session.ok()) return Work(session.status());
  Request request;
  request.signature = {Operation::kPointToPoint, dtype, ReduceOp::kSum, 0, 0, count};
  if (count > 0) request.messages.push_back(message);
  request.peers = {members()[peer]};
  return (*session)->Start(std::move(request), timeout());
}

absl::Status NcclCommunicator::BeginGroup() {
  COHORT_ASSIGN_OR_RETURN(const std::shared_ptr<Session> session, Usable());
  const std::lock_guard lock(mutex_);
  group_request_ = {};
  group_request_.signature = {Operation::kPointToPoint, DataType::kU8, ReduceOp::kSum, 0, 0, 0};
  group_ = session->MakeRun(group_request_.signature, timeout());
  return absl::OkStatus();
}

Work NcclCommunicator::EndGroup() {
  std::shared_ptr<Session> session;
  std::shared_ptr<DeviceRun> run;
  Request request;
  {
    const std::lock_guard lock(mutex_);
    if (group_ == nullptr)
      return Work(absl::FailedPreconditionError("no group of sends and receives is open"));
    session = session_;
    run = std::exchange(group_, nullptr);
    request = std::exchange(group_request_, {});
  }
  return session->Start(std::move(run), std::move(request));
}

Work NcclCommunicator::Send(const void*, size_t, const Datatype&, int, int) {
  return Work(NotOnDevices("datatypes", "pack on the device and send the bytes"));
}

Work NcclCommunicator::Recv(void*, size_t, const Datatype&, int, int) {
  return Work(NotOnDevices("datatypes", "receive the bytes and unpack on the device"));
}

Work NcclCommunicator::MoveTokens(const TokenCall&) {
  return Work(NotOnDevices("token routing", "route over base(), and move rows with AllToAllMatrix"));
}

Work NcclCommunicator::Quantized(const QuantizedCall&) {
  return Work(NotOnDevices("codecs", "encode on the device, or call the quantized collectives on base()"));
}

}  // namespace cohort::comm::nccl
