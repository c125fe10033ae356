#include "comm/transfer/transfer_engine.h"

#include "absl/strings/str_cat.h"
#include "comm/check.h"
#include "comm/transfer/engine.h"

namespace cohort::comm::transfer {

absl::StatusOr<std::unique_ptr<TransferEngine>> TransferEngine::Create(Options options) {
  COHORT_ASSIGN_OR_RETURN(auto engine, Engine::Create(std::move(options)));
  return std::unique_ptr<TransferEngine>(new TransferEngine(std::move(engine)));
}

TransferEngine::~TransferEngine() { engine_->Close(); }

std::string TransferEngine::Card() const { return engine_->CardText(); }

absl::StatusOr<PeerId> TransferEngine::AddPeer(const std::string& card,
                                               std::function<void(PeerId, const absl::Status&)> on_lost) {
  return engine_->AddPeer(card, std::move(on_lost));
}

absl::Status TransferEngine::RemovePeer(PeerId peer) { return engine_->RemovePeer(peer); }

absl::StatusOr<Region> TransferEngine::Register(void* data, uint64_t bytes) {
  return engine_->Register(data, bytes);
}

absl::StatusOr<Allocation> TransferEngine::Allocate(uint64_t bytes) { return engine_->Allocate(bytes); }

absl::Status TransferEngine::Unregister(Region region) { return engine_->Unregister(region); }

Work TransferEngine::Write(const WriteRequest& request) {
  Work work;
  if (!engine_->WriteNear(request, &work)) work = Scatter({&request, 1});
  return work;
}

Work TransferEngine::Scatter(absl::Span<const WriteRequest> requests) {
  std::vector<Engine::Call> calls(requests.size());
  std::optional<absl::Time> deadline;  // the earliest
  for (size_t i = 0; i < requests.size(); ++i) {
    const WriteRequest& request = requests[i];
    Engine::Call& call = calls[i];
    call = {request.peer, request.from.number, request.to.number, {}, request.immediate};
    const absl::Status status =
        engine_->Append(request.from, request.from_offset, request.to_offset, request.bytes, call.segments);
    if (!status.ok()) return Work(status);
    if (request.deadline.has_value())
      deadline = std::min(deadline.value_or(*request.deadline), *request.deadline);
  }
  return engine_->Submit(std::move(calls), deadline);
}

Work TransferEngine::WritePaged(const PagedWriteRequest& request) {
  const Pages& from = request.from_pages;
  const Pages& to = request.to_pages;
  if (from.indices.size() != to.indices.size()) {
    return Work(
        absl::InvalidArgumentError(absl::StrCat("a paged write from ", from.indices.size(), " pages to ",
                                                to.indices.size(), ": each needs its target")));
  }
  std::vector<Engine::Call> calls = {
      {request.peer, request.from.number, request.to.number, {}, request.immediate}};
  for (size_t i = 0; i < from.indices.size(); ++i) {
    uint64_t from_at = 0, to_at = 0;
    if (__builtin_mul_overflow(uint64_t{from.indices[i]}, from.stride, &from_at) ||
        __builtin_add_overflow(from_at, from.offset, &from_at) ||
        __builtin_mul_overflow(uint64_t{to.indices[i]}, to.stride, &to_at) ||
        __builtin_add_overflow(to_at, to.offset, &to_at)) {
      return Work(absl::InvalidArgumentError(absl::StrCat("page ", i, " of a write is beyond all memory")));
    }
    const absl::Status status =
        engine_->Append(request.from, from_at, to_at, request.page_bytes, calls[0].segments);
    if (!status.ok()) return Work(status);
  }
  return engine_->Submit(std::move(calls), request.deadline);
}

Work TransferEngine::WriteStrided(const StridedWriteRequest& request) {
  std::vector<Engine::Call> calls = {
      {request.peer, request.from.number, request.to.number, {}, request.immediate}};
  for (uint64_t i = 0; i < request.blocks && request.block_bytes > 0; ++i) {
    uint64_t from_at = 0, to_at = 0;
    if (__builtin_mul_overflow(i, request.from_stride, &from_at) ||
        __builtin_add_overflow(from_at, request.from_offset, &from_at) ||
        __builtin_mul_overflow(i, request.to_stride, &to_at) ||
        __builtin_add_overflow(to_at, request.to_offset, &to_at)) {
      return Work(absl::InvalidArgumentError(absl::StrCat("block ", i, " of a write is beyond all memory")));
    }
    const absl::Status status =
        engine_->Append(request.from, from_at, to_at, request.block_bytes, calls[0].segments);
    if (!status.ok()) return Work(status);
  }
  return engine_->Submit(std::move(calls), request.deadline);
}

Work TransferEngine::Barrier(const std::vector<PeerId>& peers, uint32_t tag,
                             std::optional<absl::Time> deadline) {
  return engine_->Barrier(peers, tag, deadline);
}

Work TransferEngine::Expect(const ExpectRequest& request) { return engine_->Expect(request); }

uint64_t TransferEngine::Count(uint32_t immediate) const { return engine_->Count(immediate); }

absl::StatusOr<int> TransferEngine::LiveRails(PeerId peer) const { return engine_->LiveRails(peer); }

}  // namespace cohort::comm::transfer
