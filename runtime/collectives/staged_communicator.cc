#include "runtime/collectives/staged_communicator.h"

#include <cstdint>
#include <numeric>
#include <utility>

#include "comm/check.h"
#include "comm/codec/quantized_collectives.h"
#include "comm/operation.h"
#include "comm/tokens/token_routing.h"
#include "runtime/collectives/staged_call.h"

namespace cohort::runtime {

using comm::Work;

namespace {

size_t Total(absl::Span<const size_t> counts) {
  return std::accumulate(counts.begin(), counts.end(), size_t{0});
}

// Where the part of a rank begins among all, which lie in the order of ranks.
size_t Begin(absl::Span<const size_t> counts, int rank) {
  return Total(counts.subspan(0, static_cast<size_t>(rank)));
}

char* At(void* memory, size_t bytes) { return static_cast<char*>(memory) + bytes; }
const char* At(const void* memory, size_t bytes) { return static_cast<const char*>(memory) + bytes; }

// Of a device's communicator: over whenever somebody asks, so that who would only have looked waits instead. What callers
// start next then does not depend on who is faster, and all ranks start the operations of devices in one order over all
// groups, as NCCL demands.
class InQueue final : public comm::WorkState {
 public:
  explicit InQueue(Work work) : work_(std::move(work)) {}
  bool Done() override { return true; }
  absl::Status Wait(absl::Time deadline) override { return work_.Wait(deadline); }

 private:
  const Work work_;
};

Work Queued(Work work) { return Work(std::make_shared<InQueue>(std::move(work))); }

}  // namespace

StagedCommunicator::StagedCommunicator(Device& device, std::shared_ptr<comm::Communicator> host,
                                       std::unique_ptr<comm::Communicator> direct)
    : device_(device), host_(std::move(host)), direct_(std::move(direct)) {}

absl::StatusOr<std::unique_ptr<comm::Communicator>> StagedCommunicator::Split(int color, int key) {
  COHORT_ASSIGN_OR_RETURN(std::unique_ptr<comm::Communicator> group, host_->Split(color, key));
  if (group == nullptr) return nullptr;
  return std::make_unique<StagedCommunicator>(device_, std::move(group));
}

// Whether the counts say how large buffers are. Others are the host communicator's to refuse, which looks into no
// buffer then.
bool StagedCommunicator::Whole(absl::Span<const size_t> counts, DataType dtype) const {
  if (static_cast<int>(counts.size()) != size()) return false;
  size_t room = SIZE_MAX / SizeOf(dtype);
  for (const size_t count : counts) {
    if (count > room) return false;
    room -= count;
  }
  return true;
}

Work StagedCommunicator::AllReduce(const void* send, void* recv, size_t count, DataType dtype,
                                   comm::ReduceOp op) {
  if (direct_ != nullptr) return Queued(direct_->AllReduce(send, recv, count, dtype, op));
  const size_t bytes = count * SizeOf(dtype);
  const auto call = std::make_shared<StagedCall>(device_);
  void* const out = send == recv ? call->InOut(recv, bytes) : call->Out(recv, bytes);
  const void* const in = send == recv ? out : call->In(send, bytes);
  return StagedCall::Start(call, host_->AllReduce(in, out, count, dtype, op));
}

Work StagedCommunicator::ReduceScatter(const void* send, void* recv, absl::Span<const size_t> counts,
                                       DataType dtype, comm::ReduceOp op) {
  if (direct_ != nullptr) return Queued(direct_->ReduceScatter(send, recv, counts, dtype, op));
  if (!Whole(counts, dtype) || send == recv) return host_->ReduceScatter(send, recv, counts, dtype, op);
  const auto call = std::make_shared<StagedCall>(device_);
  const void* const in = call->In(send, Total(counts) * SizeOf(dtype));
  void* const out = call->Out(recv, counts[rank()] * SizeOf(dtype));
  return StagedCall::Start(call, host_->ReduceScatter(in, out, counts, dtype, op));
}

Work StagedCommunicator::AllGather(const void* send, void* recv, absl::Span<const size_t> counts,
                                   DataType dtype) {
  if (direct_ != nullptr) return Queued(direct_->AllGather(send, recv, counts, dtype));
  if (!Whole(counts, dtype)) return host_->AllGather(send, recv, counts, dtype);
  const size_t own = counts[rank()] * SizeOf(dtype), begin = Begin(counts, rank()) * SizeOf(dtype);
  const auto call = std::make_shared<StagedCall>(device_);
  void* const out = call->Out(recv, Total(counts) * SizeOf(dtype));
  const void* in = nullptr;
  if (out != nullptr && send == At(recv, begin)) {  // in place
    in = At(out, begin);
    call->Fetch(send, At(out, begin), own);
  } else {
    in = call->In(send, own);
  }
  return StagedCall::Start(call, host_->AllGather(in, out, counts, dtype));
}

Work StagedCommunicator::Broadcast(void* buffer, size_t count, DataType dtype, int root) {
  if (direct_ != nullptr) return Queued(direct_->Broadcast(buffer, count, dtype, root));
  const size_t bytes = count * SizeOf(dtype);
  const auto call = std::make_shared<StagedCall>(device_);
  void* const memory = rank() == root ? call->In(buffer, bytes) : call->Out(buffer, bytes);
  return StagedCall::Start(call, host_->Broadcast(memory, count, dtype, root));
}

Work StagedCommunicator::Reduce(const void* send, void* recv, size_t count, DataType dtype, int root,
                                comm::ReduceOp op) {
  const size_t bytes = count * SizeOf(dtype);
  const auto call = std::make_shared<StagedCall>(device_);
  const bool in_place = rank() == root && send == recv;
  void* out = nullptr;
  if (rank() == root) out = in_place ? call->InOut(recv, bytes) : call->Out(recv, bytes);
  const void* const in = in_place ? out : call->In(send, bytes);
  return StagedCall::Start(call, host_->Reduce(in, out, count, dtype, root, op));
}

Work StagedCommunicator::Gather(const void* send, void* recv, absl::Span<const size_t> counts, DataType dtype,
                                int root) {
  if (!Whole(counts, dtype)) return host_->Gather(send, recv, counts, dtype, root);
  const size_t own = counts[rank()] * SizeOf(dtype), begin = Begin(counts, rank()) * SizeOf(dtype);
  const auto call = std::make_shared<StagedCall>(device_);
  void* const out = rank() == root ? call->Out(recv, Total(counts) * SizeOf(dtype)) : nullptr;
  const void* in = nullptr;
  if (out != nullptr && send == At(recv, begin)) {
    in = At(out, begin);
    call->Fetch(send, At(out, begin), own);
  } else {
    in = call->In(send, own);
  }
  return StagedCall::Start(call, host_->Gather(in, out, counts, dtype, root));
}

Work StagedCommunicator::Scatter(const void* send, void* recv, absl::Span<const size_t> counts,
                                 DataType dtype, int root) {
  if (!Whole(counts, dtype)) return host_->Scatter(send, recv, counts, dtype, root);
  const size_t own = counts[rank()] * SizeOf(dtype), begin = Begin(counts, rank()) * SizeOf(dtype);
  const auto call = std::make_shared<StagedCall>(device_);
  void* const in = rank() == root ? call->In(send, Total(counts) * SizeOf(dtype)) : nullptr;
  // In place, the own part stays where it is.
  void* const out = in != nullptr && recv == At(send, begin) ? At(in, begin) : call->Out(recv, own);
  return StagedCall::Start(call, host_->Scatter(in, out, counts, dtype, root));
}

Work StagedCommunicator::AllToAll(const void* send, void* recv, size_t count, DataType dtype) {
  if (direct_ != nullptr) return Queued(direct_->AllToAll(send, recv, count, dtype));
  const std::vector<size_t> counts(static_cast<size_t>(size()), count);
  if (!Whole(counts, dtype) || send == recv) return host_->AllToAll(send, recv, count, dtype);
  const size_t bytes = Total(counts) * SizeOf(dtype);
  const auto call = std::make_shared<StagedCall>(device_);
  const void* const in = call->In(send, bytes);
  return StagedCall::Start(call, host_->AllToAll(in, call->Out(recv, bytes), count, dtype));
}

Work StagedCommunicator::AllToAllV(const void* send, absl::Span<const size_t> send_counts, void* recv,
                                   absl::Span<const size_t> recv_counts, DataType dtype) {
  if (direct_ != nullptr) return Queued(direct_->AllToAllV(send, send_counts, recv, recv_counts, dtype));
  if (!Whole(send_counts, dtype) || !Whole(recv_counts, dtype) || send == recv) {
    return host_->AllToAllV(send, send_counts, recv, recv_counts, dtype);
  }
  const auto call = std::make_shared<StagedCall>(device_);
  const void* const in = call->In(send, Total(send_counts) * SizeOf(dtype));
  void* const out = call->Out(recv, Total(recv_counts) * SizeOf(dtype));
  return StagedCall::Start(call, host_->AllToAllV(in, send_counts, out, recv_counts, dtype));
}

Work StagedCommunicator::AllToAllMatrix(const void* send, void* recv, absl::Span<const size_t> counts,
                                        DataType dtype) {
  if (direct_ != nullptr) return Queued(direct_->AllToAllMatrix(send, recv, counts, dtype));
  const auto ranks = static_cast<size_t>(size()), mine = static_cast<size_t>(rank());
  std::vector<size_t> to, from;
  for (size_t peer = 0; counts.size() == ranks * ranks && peer < ranks; ++peer) {
    to.push_back(counts[mine * ranks + peer]);
    from.push_back(counts[peer * ranks + mine]);
  }
  if (!Whole(to, dtype) || !Whole(from, dtype) || send == recv) {
    return host_->AllToAllMatrix(send, recv, counts, dtype);
  }
  const auto call = std::make_shared<StagedCall>(device_);
  const void* const in = call->In(send, Total(to) * SizeOf(dtype));
  void* const out = call->Out(recv, Total(from) * SizeOf(dtype));
  return StagedCall::Start(call, host_->AllToAllMatrix(in, out, counts, dtype));
}

// ---- By way of the host also where there is another ----

Work StagedCommunicator::Send(const void* buffer, size_t count, DataType dtype, int peer, int tag) {
  const auto call = std::make_shared<StagedCall>(device_);
  const void* const in = call->In(buffer, count * SizeOf(dtype));
  return StagedCall::Start(call, host_->Send(in, count, dtype, peer, tag));
}

Work StagedCommunicator::Recv(void* buffer, size_t count, DataType dtype, int peer, int tag) {
  const auto call = std::make_shared<StagedCall>(device_);
  void* const out = call->Out(buffer, count * SizeOf(dtype));
  return StagedCall::Start(call, host_->Recv(out, count, dtype, peer, tag));
}

namespace {

// Calls move(offset in the buffer, offset among the dense bytes, bytes) for each run of so many of a type.
template <typename Move>
void ForRuns(size_t count, const comm::Datatype& type, const Move& move) {
  size_t dense = 0;
  for (size_t i = 0; i < count; ++i) {
    comm::RunCursor cursor(type);
    while (true) {
      const comm::RunCursor::Piece piece = cursor.Next(SIZE_MAX);
      if (piece.bytes == 0) break;
      move(static_cast<ptrdiff_t>(i) * type.extent() + piece.offset, dense, piece.bytes);
      dense += piece.bytes;
    }
  }
}

}  // namespace

Work StagedCommunicator::Send(const void* buffer, size_t count, const comm::Datatype& type, int peer,
                              int tag) {
  if (buffer == nullptr) return host_->Send(buffer, count, type, peer, tag);
  const auto call = std::make_shared<StagedCall>(device_);
  const size_t bytes = count * type.bytes();
  void* const dense = call->Room(bytes);
  ForRuns(count, type, [&](ptrdiff_t offset, size_t at, size_t run) {
    call->Fetch(static_cast<const char*>(buffer) + offset, At(dense, at), run);
  });
  return StagedCall::Start(call, host_->Send(dense, bytes, DataType::kU8, peer, tag));
}

Work StagedCommunicator::Recv(void* buffer, size_t count, const comm::Datatype& type, int peer, int tag) {
  if (buffer == nullptr) return host_->Recv(buffer, count, type, peer, tag);
  const auto call = std::make_shared<StagedCall>(device_);
  const size_t bytes = count * type.bytes();
  void* const dense = call->Room(bytes);
  ForRuns(count, type, [&](ptrdiff_t offset, size_t at, size_t run) {
    call->BringBack(At(dense, at), static_cast<char*>(buffer) + offset, run);
  });
  return StagedCall::Start(call, host_->Recv(dense, bytes, DataType::kU8, peer, tag));
}

Work StagedCommunicator::MoveTokens(const comm::TokenCall&) {
  return Work(
      absl::UnimplementedError("tokens in a device's memory are not routed: route over the host's "
                               "communicator, and move rows with AllToAllMatrix"));
}

Work StagedCommunicator::Quantized(const comm::QuantizedCall& call) {
  const bool all_reduce = call.operation == comm::Operation::kAllReduce,
             gathers = call.operation == comm::Operation::kAllGather,
             scatters = call.operation == comm::Operation::kReduceScatter;
  const bool whole = all_reduce || (Whole(call.counts, call.dtype) &&
                                    (gathers || scatters || Whole(call.recv_counts, call.dtype)));
  if (!whole || (call.send == call.recv && !all_reduce && !gathers)) return host_->Quantized(call);
  size_t sent = call.count, received = call.count;
  if (!all_reduce) {
    const size_t own = call.counts[rank()], total = Total(call.counts);
    sent = gathers ? own : total;
    received = gathers ? total : scatters ? own : Total(call.recv_counts);
  }
  comm::QuantizedCall staged = call;
  const auto state = std::make_shared<StagedCall>(device_);
  staged.recv = state->Out(call.recv, received * SizeOf(call.dtype));
  const size_t begin = gathers ? Begin(call.counts, rank()) * SizeOf(call.dtype) : 0;
  if (staged.recv != nullptr && call.send == At(call.recv, begin)) {
    state->Fetch(call.send, At(staged.recv, begin), sent * SizeOf(call.dtype));
    staged.send = At(staged.recv, begin);
  } else {
    staged.send = state->In(call.send, sent * SizeOf(call.dtype));
  }
  return StagedCall::Start(state, host_->Quantized(staged));
}

// ---- Edits ----

absl::StatusOr<comm::MembershipChange> StagedCommunicator::Shrink(comm::EditOptions options) {
  return direct_ != nullptr ? direct_->Shrink(options) : host_->Shrink(options);
}

absl::StatusOr<comm::MembershipChange> StagedCommunicator::Grow(std::shared_ptr<comm::JoinBoard> board,
                                                                comm::EditOptions options) {
  return direct_ != nullptr ? direct_->Grow(std::move(board), options)
                            : host_->Grow(std::move(board), options);
}

void StagedCommunicator::Abort(const absl::Status& why) {
  if (direct_ != nullptr) direct_->Abort(why);
  host_->Abort(why);
}

}  // namespace cohort::runtime
