#include "comm/nccl/host_bridge.h"

#include <atomic>
#include <utility>

#include "absl/time/clock.h"
#include "comm/check.h"
#include "comm/nccl/policy.h"

namespace cohort::comm::nccl {
namespace {

// Above every number of a crossing, as signed numbers.
constexpr uint32_t kReleased = 0x7fffffff;

void Raise(uint32_t* flag, uint32_t value) {
  // What was released stays so.
  std::atomic_ref<uint32_t> raised(*flag);
  uint32_t present = raised.load();
  while (present < value && !raised.compare_exchange_weak(present, value)) {
  }
}

}  // namespace

const std::byte* Buffers::from(Place place) const {
  const std::byte* const base = place.buffer == Buffer::kSend   ? send
                                : place.buffer == Buffer::kRecv ? recv
                                                                : scratch;
  return base == nullptr ? nullptr : base + place.at * SizeOf(dtype);
}

std::byte* Buffers::to(Place place) const {
  COHORT_CHECK(place.buffer != Buffer::kSend, "a plan that writes into its input");
  return const_cast<std::byte*>(from(place));
}

absl::StatusOr<std::unique_ptr<HostBridge>> HostBridge::Create(NcclApi& api,
                                                               std::unique_ptr<Communicator> lanes,
                                                               size_t piece_bytes) {
  std::unique_ptr<HostBridge> bridge(new HostBridge(api, std::move(lanes), piece_bytes));
  COHORT_RETURN_IF_ERROR(bridge->Open());
  return bridge;
}

absl::Status HostBridge::Open() {
  COHORT_ASSIGN_OR_RETURN(void* const flag, api_.AllocatePinned(sizeof(uint32_t)));
  flag_ = new (flag) uint32_t(0);
  if (lanes_ == nullptr) return absl::OkStatus();
  COHORT_ASSIGN_OR_RETURN(out_, api_.CreateStream());
  COHORT_ASSIGN_OR_RETURN(in_, api_.CreateStream());
  slots_.resize(policy::kPiecesInFlight);
  for (Slot& slot : slots_) {
    COHORT_ASSIGN_OR_RETURN(void* const input, api_.AllocatePinned(piece_bytes_));
    slot.input = static_cast<std::byte*>(input);
    COHORT_ASSIGN_OR_RETURN(void* const output, api_.AllocatePinned(piece_bytes_));
    slot.output = static_cast<std::byte*>(output);
    COHORT_ASSIGN_OR_RETURN(slot.copied, api_.CreateEvent());
  }
  return absl::OkStatus();
}

HostBridge::~HostBridge() {
  lanes_.reset();  // nothing of the network's in our memory any more
  for (const Slot& slot : slots_) {
    if (slot.input != nullptr) api_.FreePinned(slot.input);
    if (slot.output != nullptr) api_.FreePinned(slot.output);
    if (slot.copied != nullptr) api_.DestroyEvent(slot.copied);
  }
  if (out_ != nullptr) api_.DestroyStream(out_);
  if (in_ != nullptr) api_.DestroyStream(in_);
  if (flag_ != nullptr) api_.FreePinned(flag_);
}

absl::StatusOr<bool> HostBridge::Advance(Crossing& crossing) {
  if (lanes_ == nullptr || crossing.pieces.empty()) {
    Raise(flag_, crossing.number);
    return true;
  }
  const size_t all = crossing.pieces.size();
  if (crossing.begun == 0) COHORT_RETURN_IF_ERROR(api_.StreamWaitsForEvent(out_, crossing.ready));
  while (crossing.over < crossing.back) {
    COHORT_ASSIGN_OR_RETURN(const bool copied, api_.Query(SlotOf(crossing.over).copied));
    if (!copied) break;
    ++crossing.over;
  }
  while (crossing.begun < all && crossing.begun < crossing.over + slots_.size()) {
    COHORT_RETURN_IF_ERROR(CopyOut(crossing, crossing.begun));
    ++crossing.begun;
  }
  while (crossing.sent < crossing.begun) {
    Slot& slot = SlotOf(crossing.sent);
    COHORT_ASSIGN_OR_RETURN(const bool copied, api_.Query(slot.copied));
    if (!copied) break;
    slot.exchange = Exchange(crossing, crossing.pieces[crossing.sent].call, slot);
    ++crossing.sent;
  }
  while (crossing.back < crossing.sent) {
    const Slot& slot = SlotOf(crossing.back);
    if (!slot.exchange.Done()) break;
    COHORT_RETURN_IF_ERROR(slot.exchange.Wait());
    COHORT_RETURN_IF_ERROR(CopyIn(crossing, crossing.back));
    ++crossing.back;
  }
  if (crossing.over < all) return false;
  Raise(flag_, crossing.number);
  return true;
}

absl::Status HostBridge::CopyOut(Crossing& crossing, size_t piece) {
  Slot& slot = SlotOf(piece);
  const Piece& what = crossing.pieces[piece];
  const size_t element = SizeOf(crossing.buffers.dtype);
  const int host = lanes_->rank();
  COHORT_CHECK(
      what.call.input(host) * element <= piece_bytes_ && what.call.output(host) * element <= piece_bytes_,
      "a piece larger than its place");
  std::byte* const base = what.call.operation == Operation::kBroadcast ? slot.output : slot.input;
  for (const Segment& segment : what.out) {
    COHORT_RETURN_IF_ERROR(api_.Copy(base + segment.at * element, crossing.buffers.from(segment.place),
                                     segment.count * element, out_));
  }
  slot.used = true;
  return api_.Record(slot.copied, out_);
}

absl::Status HostBridge::CopyIn(Crossing& crossing, size_t piece) {
  Slot& slot = SlotOf(piece);
  const size_t element = SizeOf(crossing.buffers.dtype);
  for (const Segment& segment : crossing.pieces[piece].in) {
    COHORT_RETURN_IF_ERROR(api_.Copy(crossing.buffers.to(segment.place), slot.output + segment.at * element,
                                     segment.count * element, in_));
  }
  return api_.Record(slot.copied, in_);
}

Work HostBridge::Exchange(const Crossing& crossing, const HostCall& call, Slot& slot) {
  const DataType dtype = crossing.buffers.dtype;
  const ReduceOp op = crossing.buffers.op;
  switch (call.operation) {
    case Operation::kAllReduce:
      return lanes_->AllReduce(slot.input, slot.output, call.count, dtype, op);
    case Operation::kReduceScatter:
      return lanes_->ReduceScatter(slot.input, slot.output, call.counts, dtype, op);
    case Operation::kAllGather:
      return lanes_->AllGather(slot.input, slot.output, call.counts, dtype);
    case Operation::kBroadcast:
      return lanes_->Broadcast(slot.output, call.count, dtype, call.root);
    case Operation::kReduce:
      return lanes_->Reduce(slot.input, slot.output, call.count, dtype, call.root, op);
    default:
      COHORT_CHECK(false, "%s does not cross in pieces", Name(call.operation));
  }
}

void HostBridge::Release() { Raise(flag_, kReleased); }

bool HostBridge::End(const absl::Status& why, absl::Time deadline) {
  if (lanes_ == nullptr) return true;
  lanes_->Abort(why);
  for (const Slot& slot : slots_) {
    if (!slot.used) continue;
    (void)slot.exchange.Wait(deadline);
    for (;;) {
      const absl::StatusOr<bool> copied = api_.Query(slot.copied);
      if (!copied.ok()) return false;
      if (*copied) break;
      if (absl::Now() > deadline) return false;
      absl::SleepFor(policy::kPendingPause);
    }
  }
  return true;
}

}  // namespace cohort::comm::nccl
