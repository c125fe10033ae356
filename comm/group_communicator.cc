#include "comm/group_communicator.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/types/span.h"
#include "comm/check.h"
#include "comm/codec/quantized_collectives.h"
#include "comm/tokens/token_routing.h"

namespace cohort::comm {
namespace {

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
      timeout_(absl::ToInt64Nanoseconds(options_.timeout)),
      topology_(engine_->topology().Group(group_->members, group_->rank)) {
  SetTuning(std::move(tuning));
}

GroupCommunicator::~GroupCommunicator() { engine_->RemoveGroup(group_); }

absl::Status GroupCommunicator::CheckBuffer(const char* what, const void* buffer, size_t count) {
  if (buffer != nullptr || count == 0) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("the ", what, " buffer of ", count, " elements is null"));
}

const void* GroupCommunicator::PartOf(const void* whole, absl::Span<const size_t> counts,
                                      DataType dtype) const {
  return static_cast<const std::byte*>(whole) + Sum(counts.subspan(0, rank())) * SizeOf(dtype);
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

Work GroupCommunicator::AllReduce(const void* send, void* recv, size_t count, DataType dtype, ReduceOp op) {
  if (auto status = CheckBuffer("send", send, count); !status.ok()) return Work(status);
  if (auto status = CheckBuffer("recv", recv, count); !status.ok()) return Work(status);
  return Collect({.operation = Operation::kAllReduce,
                  .dtype = dtype,
                  .op = op,
                  .count = count,
                  .in_place = send == recv},
                 send, recv);
}

Work GroupCommunicator::ReduceScatter(const void* send, void* recv, absl::Span<const size_t> counts,
                                      DataType dtype, ReduceOp op) {
  if (auto status = CheckCounts("counts", counts, SizeOf(dtype)); !status.ok()) return Work(status);
  if (auto status = CheckBuffer("send", send, Sum(counts)); !status.ok()) return Work(status);
  if (auto status = CheckBuffer("recv", recv, counts[rank()]); !status.ok()) return Work(status);
  if (auto status = NotInPlace("reduce-scatter", send, recv); !status.ok()) return Work(status);
  return Collect({.operation = Operation::kReduceScatter, .dtype = dtype, .op = op, .counts = counts}, send,
                 recv);
}

Work GroupCommunicator::AllGather(const void* send, void* recv, absl::Span<const size_t> counts,
                                  DataType dtype) {
  if (auto status = CheckCounts("counts", counts, SizeOf(dtype)); !status.ok()) return Work(status);
  if (auto status = CheckBuffer("send", send, counts[rank()]); !status.ok()) return Work(status);
  if (auto status = CheckBuffer("recv", recv, Sum(counts)); !status.ok()) return Work(status);
  const bool in_place = recv != nullptr && send == PartOf(recv, counts, dtype);
  return Collect({.operation = Operation::kAllGather, .dtype = dtype, .counts = counts, .in_place = in_place},
                 send, recv);
}

Work GroupCommunicator::Broadcast(void* buffer, size_t count, DataType dtype, int root) {
  if (auto status = CheckBuffer("broadcast", buffer, count); !status.ok()) return Work(status);
  if (auto status = CheckRoot(root); !status.ok()) return Work(status);
  return Collect({.operation = Operation::kBroadcast, .dtype = dtype, .root = root, .count = count}, nullptr,
                 buffer);
}

Work GroupCommunicator::Reduce(const void* send, void* recv, size_t count, DataType dtype, int root,
                               ReduceOp op) {
  if (auto status = CheckRoot(root); !status.ok()) return Work(status);
  const bool is_root = rank() == root;
  if (auto status = CheckBuffer("send", send, count); !status.ok()) return Work(status);
  if (auto status = CheckBuffer("recv", recv, is_root ? count : 0); !status.ok()) return Work(status);
  return Collect({.operation = Operation::kReduce,
                  .dtype = dtype,
                  .op = op,
                  .root = root,
                  .count = count,
                  .in_place = is_root && send == recv},
                 send, recv);
}

Work GroupCommunicator::Gather(const void* send, void* recv, absl::Span<const size_t> counts, DataType dtype,
                               int root) {
  if (auto status = CheckRoot(root); !status.ok()) return Work(status);
  if (auto status = CheckCounts("counts", counts, SizeOf(dtype)); !status.ok()) return Work(status);
  const bool is_root = rank() == root;
  if (auto status = CheckBuffer("send", send, counts[rank()]); !status.ok()) return Work(status);
  if (auto status = CheckBuffer("recv", recv, is_root ? Sum(counts) : 0); !status.ok()) return Work(status);
  const bool in_place = is_root && recv != nullptr && send == PartOf(recv, counts, dtype);
  return Collect(
      {.operation = Operation::kGather, .dtype = dtype, .root = root, .counts = counts, .in_place = in_place},
      send, recv);
}

Work GroupCommunicator::Scatter(const void* send, void* recv, absl::Span<const size_t> counts, DataType dtype,
                                int root) {
  if (auto status = CheckRoot(root); !status.ok()) return Work(status);
  if (auto status = CheckCounts("counts", counts, SizeOf(dtype)); !status.ok()) return Work(status);
  const bool is_root = rank() == root;
  if (auto status = CheckBuffer("send", send, is_root ? Sum(counts) : 0); !status.ok()) return Work(status);
  if (auto status = CheckBuffer("recv", recv, counts[rank()]); !status.ok()) return Work(status);
  const bool in_place = is_root && send != nullptr && recv == PartOf(send, counts, dtype);
  return Collect({.operation = Operation::kScatter,
                  .dtype = dtype,
                  .root = root,
                  .counts = counts,
                  .in_place = in_place},
                 send, recv);
}

Work GroupCommunicator::AllToAll(const void* send, void* recv, size_t count, DataType dtype) {
  if (count > SIZE_MAX / SizeOf(dtype) / static_cast<size_t>(size())) {
    return Work(absl::InvalidArgumentError(absl::StrCat(count, " elements for each rank are too many")));
  }
  if (auto status = CheckBuffer("send", send, count); !status.ok()) return Work(status);
  if (auto status = CheckBuffer("recv", recv, count); !status.ok()) return Work(status);
  if (auto status = NotInPlace("all-to-all", send, recv); !status.ok()) return Work(status);
  return Collect({.operation = Operation::kAllToAll, .dtype = dtype, .count = count}, send, recv);
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
  return Collect(
      {.operation = Operation::kAllToAllV, .dtype = dtype, .counts = send_counts, .recv_counts = recv_counts},
      send, recv);
}

Work GroupCommunicator::AllToAllMatrix(const void* send, void* recv, absl::Span<const size_t> counts,
                                       DataType dtype) {
  const size_t ranks = static_cast<size_t>(size());
  if (counts.size() != ranks * ranks) {
    return Work(absl::InvalidArgumentError(
        absl::StrFormat("%d counts for a group of %d ranks: one for each pair is needed, %d", counts.size(),
                        size(), ranks * ranks)));
  }
  std::vector<size_t> recv_counts;
  for (size_t peer = 0; peer < ranks; ++peer) {
    recv_counts.push_back(counts[peer * ranks + rank()]);
    // Every row: ranks pass on what is not their own.
    const auto row = counts.subspan(peer * ranks, ranks);
    if (auto status = CheckCounts("counts of a rank", row, SizeOf(dtype)); !status.ok()) return Work(status);
  }
  const auto send_counts = counts.subspan(rank() * ranks, ranks);
  if (auto status = CheckCounts("recv counts", recv_counts, SizeOf(dtype)); !status.ok()) return Work(status);
  if (auto status = CheckBuffer("send", send, Sum(send_counts)); !status.ok()) return Work(status);
  if (auto status = CheckBuffer("recv", recv, Sum(recv_counts)); !status.ok()) return Work(status);
  if (auto status = NotInPlace("all-to-all-v", send, recv); !status.ok()) return Work(status);
  return Collect({.operation = Operation::kAllToAllV,
                  .dtype = dtype,
                  .counts = send_counts,
                  .recv_counts = recv_counts,
                  .matrix = counts},
                 send, recv);
}

Work GroupCommunicator::Barrier() { return Collect({}, nullptr, nullptr); }

Work GroupCommunicator::MoveTokens(const TokenCall& call) {
  Run::Arguments arguments;
  arguments.group = group_;
  arguments.schedule = call.schedule;
  arguments.signature = {call.operation, call.dtype, ReduceOp::kSum, 0, call.digest, call.width};
  arguments.algorithm = "forwarding";
  arguments.input = static_cast<const std::byte*>(call.send);
  arguments.output = static_cast<std::byte*>(call.recv);
  arguments.reduce = FindReduce(call.dtype, ReduceOp::kSum);
  return Start(std::move(arguments));
}

Work GroupCommunicator::Quantized(const QuantizedCall& call) {
  Call collective{.operation = call.operation, .dtype = call.dtype, .quantized = &call};
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
  if (call.operation == Operation::kAllReduce) {
    collective.count = call.count;
  } else if (call.operation == Operation::kAllToAll) {
    collective.count = call.counts[0];
  } else {
    collective.counts = call.counts;
    collective.recv_counts = call.recv_counts;
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
  if (call.operation == Operation::kAllGather) {
    collective.in_place = call.recv != nullptr && call.send == PartOf(call.recv, call.counts, call.dtype);
  } else if (call.operation == Operation::kAllReduce) {
    collective.in_place = call.send == call.recv;
  } else if (auto status = NotInPlace(Name(call.operation), call.send, call.recv); !status.ok()) {
    return Work(status);
  }
  return Collect(collective, call.send, call.recv);
}

}  // namespace cohort::comm
