// From a call to a run: the communicator remembers the latest kinds of calls, with their schedules and a run that can
// be used again, because programs call the same operations over and over.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "comm/check.h"
#include "comm/codec/quantized_collectives.h"
#include "comm/codec/schedules.h"
#include "comm/group_communicator.h"
#include "comm/policy.h"
#include "comm/ticks.h"

namespace cohort::comm {
namespace {

uint32_t Digest(absl::Span<const size_t> counts, int root) {
  uint64_t hash = 0xcbf29ce484222325ull + static_cast<uint64_t>(root);  // FNV-1a, by words
  for (const size_t count : counts) hash = (hash ^ count) * 0x100000001b3ull;
  return static_cast<uint32_t>(hash ^ hash >> 32);
}

bool Equal(const std::vector<size_t>& a, absl::Span<const size_t> b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end());
}

Signature SignatureOf(const Collective& collective, DataType dtype, ReduceOp op) {
  Signature signature = {collective.operation, dtype, op, 0, 0, TotalCount(collective)};
  if (collective.operation == Operation::kAllToAllV) {
    signature.count = 0;  // differs by rank; the sizes of the messages tell, or the digest does
    if (collective.matrix != nullptr) signature.digest = Digest(*collective.matrix, 1);
  } else {
    signature.digest = Digest(collective.counts, collective.root);
  }
  return signature;
}

}  // namespace

bool GroupCommunicator::Kind::Fits(const Call& call) const {
  const Signature& signature = arguments.signature;
  if (collective.operation != call.operation || signature.dtype != call.dtype ||
      signature.reduce != call.op || collective.root != call.root || collective.in_place != call.in_place ||
      collective.quantized != (call.quantized != nullptr)) {
    return false;
  }
  if (call.operation == Operation::kAllToAll) return collective.counts[0] == call.count;
  return collective.count == call.count && Equal(collective.counts, call.counts) &&
         Equal(collective.recv_counts, call.recv_counts) &&
         (collective.matrix == nullptr) == call.matrix.empty() &&
         (collective.matrix == nullptr || Equal(*collective.matrix, call.matrix));
}

GroupCommunicator::Kind GroupCommunicator::MakeKindLocked(const Call& call) {
  Kind kind;
  Collective& collective = kind.collective;
  collective.operation = call.operation;
  collective.rank = rank();
  collective.size = size();
  collective.root = call.root;
  if (call.operation == Operation::kAllToAll) {
    collective.counts.assign(size(), call.count);
    collective.recv_counts = collective.counts;
  } else {
    collective.count = call.count;
    collective.counts.assign(call.counts.begin(), call.counts.end());
    collective.recv_counts.assign(call.recv_counts.begin(), call.recv_counts.end());
  }
  if (!call.matrix.empty()) {
    collective.matrix = std::make_shared<const std::vector<size_t>>(call.matrix.begin(), call.matrix.end());
  }
  collective.in_place = call.in_place;
  collective.quantized = call.quantized != nullptr;
  collective.hosts = topology_.map();

  Collective cut = collective;
  const Algorithm& algorithm = cut.quantized ? SelectQuantized(cut) : tuner_->Select(cut, SizeOf(call.dtype));
  kind.arguments.group = group_;
  kind.arguments.schedule = std::make_shared<const Schedule>(algorithm.make(cut));
  kind.arguments.algorithm = algorithm.name;
  kind.arguments.signature = SignatureOf(collective, call.dtype, call.op);
  kind.arguments.reduce = FindReduce(call.dtype, call.op);
  return kind;
}

GroupCommunicator::Kind& GroupCommunicator::KindOfLocked(const Call& call) {
  const auto known =
      std::find_if(kinds_.begin(), kinds_.end(), [&](const Kind& kind) { return kind.Fits(call); });
  if (known != kinds_.end()) {
    if (known != kinds_.begin()) kinds_.splice(kinds_.begin(), kinds_, known);
  } else {
    kinds_.push_front(MakeKindLocked(call));
    if (kinds_.size() > policy::kScheduleCache) kinds_.pop_back();
  }
  return kinds_.front();
}

void GroupCommunicator::LimitScratchLocked() {
  size_t kept = 0;
  for (Kind& kind : kinds_) {
    kept += kind.scratch_bytes;
    if (kept <= policy::kScratchKept) continue;
    kind.latest.reset();
    kept -= std::exchange(kind.scratch_bytes, 0);
  }
}

Work GroupCommunicator::Start(Run::Arguments arguments) {
  arguments.began = NowTicks();
  arguments.timeout = timeout_;
  auto run = std::make_shared<Run>(engine_, std::move(arguments));
  engine_->Start(run);
  return Work(std::static_pointer_cast<WorkState>(std::move(run)));
}

Work GroupCommunicator::Collect(const Call& call, const void* send, void* recv) {
  if (call.count > SIZE_MAX / SizeOf(call.dtype)) {
    return Work(absl::InvalidArgumentError(absl::StrCat(call.count, " elements are too many")));
  }
  const auto* input = static_cast<const std::byte*>(send);
  auto* output = static_cast<std::byte*>(recv);
  const int64_t began = NowTicks();
  std::shared_ptr<Run> run;
  {
    std::unique_lock lock(mutex_);
    if (call.operation == Operation::kAllToAllV && call.matrix.empty() && call.quantized == nullptr &&
        tuner_->ExchangesCounts()) {
      lock.unlock();
      return CollectAfterCounts(call, send, recv);
    }
    Kind& kind = KindOfLocked(call);
    // Whoever else had it has seen that it is over, and has let go.
    if (call.quantized == nullptr && kind.latest != nullptr && kind.latest.use_count() == 1 &&
        kind.latest->done()) {
      std::atomic_thread_fence(std::memory_order_acquire);
      run = kind.latest;
      run->Renew(input, output, began, timeout_);
    } else {
      Run::Arguments arguments = kind.arguments;
      arguments.input = input;
      arguments.output = output;
      arguments.began = began;
      arguments.timeout = timeout_;
      if (call.quantized != nullptr) {
        if (auto status = AddCodec(*call.quantized, &arguments); !status.ok()) return Work(status);
      }
      run = std::make_shared<Run>(engine_, std::move(arguments));
      if (call.quantized == nullptr) {
        kind.latest = run;
        kind.scratch_bytes = run->ScratchBytes();
        if (kind.scratch_bytes > 0) LimitScratchLocked();
      }
    }
  }
  engine_->Start(run);
  return Work(std::static_pointer_cast<WorkState>(std::move(run)));
}

Work GroupCommunicator::CollectAfterCounts(const Call& call, const void* send, void* recv) {
  const size_t ranks = static_cast<size_t>(size()), element_bytes = SizeOf(call.dtype);
  Collective collective;
  collective.operation = call.operation;
  collective.rank = rank();
  collective.size = size();
  collective.counts.assign(call.counts.begin(), call.counts.end());
  collective.recv_counts.assign(call.recv_counts.begin(), call.recv_counts.end());
  collective.hosts = topology_.map();
  auto prelude = std::make_shared<Prelude>();
  prelude->input.assign(call.counts.begin(), call.counts.end());
  prelude->output.resize(ranks * ranks);
  prelude->then = [this, collective = std::move(collective), ranks, element_bytes](
                      absl::Span<const uint64_t> counts) -> absl::StatusOr<std::shared_ptr<const Schedule>> {
    for (size_t peer = 0; peer < ranks; ++peer) {
      if (counts[peer * ranks + rank()] == collective.recv_counts[peer]) continue;
      return absl::InvalidArgumentError(
          absl::StrFormat("rank %d sends %d elements to rank %d, which expects %d", peer,
                          counts[peer * ranks + rank()], rank(), collective.recv_counts[peer]));
    }
    Collective known = collective;
    known.matrix = std::make_shared<const std::vector<size_t>>(counts.begin(), counts.end());
    const std::lock_guard lock(mutex_);
    return std::make_shared<const Schedule>(tuner_->Select(known, element_bytes).make(known));
  };
  const std::vector<size_t> row_counts(ranks, ranks);
  Run::Arguments arguments;
  {
    const std::lock_guard lock(mutex_);
    arguments =
        KindOfLocked({.operation = Operation::kAllGather, .dtype = DataType::kI64, .counts = row_counts})
            .arguments;
  }
  arguments.signature = {Operation::kAllToAllV, call.dtype, ReduceOp::kSum, 0, Digest({}, 2), 0};
  arguments.algorithm = "counts first";
  arguments.prelude = std::move(prelude);
  arguments.input = static_cast<const std::byte*>(send);
  arguments.output = static_cast<std::byte*>(recv);
  arguments.reduce = FindReduce(call.dtype, ReduceOp::kSum);
  return Start(std::move(arguments));
}

}  // namespace cohort::comm
