#include "comm/transfer/ring_link.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "comm/check.h"
#include "comm/doorbell.h"
#include "comm/transfer/policy.h"
#include "comm/transfer/region_number.h"

namespace cohort::comm::transfer {

absl::StatusOr<std::unique_ptr<RingLink>> RingLink::Attach(LocalHub* own, const std::string& card,
                                                           uint64_t engine, uint64_t peer) {
  const std::vector<std::string> fields = absl::StrSplit(card, ',');
  int pid = 0, fd = -1, knock = -1;
  uint64_t start = 0, nonce = 0, probe = 0;
  if (fields.size() != 6 || !absl::SimpleAtoi(fields[0], &pid) || !absl::SimpleAtoi(fields[1], &start) ||
      !absl::SimpleAtoi(fields[2], &fd) || !absl::SimpleAtoi(fields[3], &nonce) ||
      !absl::SimpleAtoi(fields[4], &knock) || !absl::SimpleAtoi(fields[5], &probe)) {
    return absl::InvalidArgumentError(absl::StrCat("'", card, "' is no address in shared memory"));
  }
  COHORT_ASSIGN_OR_RETURN(shm::Process process, shm::Process::Open(pid, start));
  COHORT_ASSIGN_OR_RETURN(SharedMemory memory, SharedMemory::Open(pid, fd, kHubSegmentBytes));
  auto link = std::unique_ptr<RingLink>(new RingLink(own, std::move(process), std::move(memory)));
  COHORT_ASSIGN_OR_RETURN(std::byte* const layout, link->memory_.Map(0, kHubBytes));
  link->peer_hub_ = reinterpret_cast<HubLayout*>(layout);
  if (link->peer_hub_->nonce != nonce)
    return absl::UnavailableError(absl::StrCat("process ", pid, " has another transfer engine there"));
  link->knock_fd_ =
      open(absl::StrCat("/proc/", pid, "/fd/", knock).c_str(), O_WRONLY | O_CLOEXEC | O_NONBLOCK);
  if (link->knock_fd_ < 0) return absl::ErrnoToStatus(errno, "shared memory: a peer's pipe");
  link->engine_ = engine;
  link->peer_ = peer;
  own->Sweep();
  for (int i = 0; i < static_cast<int>(policy::kTransferLocalPeers) && link->claim_ < 0; ++i) {
    uint64_t free = 0;
    if (link->peer_hub_->board[i].compare_exchange_strong(free, engine)) link->claim_ = i;
  }
  if (link->claim_ < 0) {
    return absl::ResourceExhaustedError(
        absl::StrCat("process ", pid, " has ", policy::kTransferLocalPeers, " peers on its host already"));
  }
  COHORT_ASSIGN_OR_RETURN(std::byte* const ring,
                          link->memory_.Map(HubRingOffset(link->claim_), kHubRingBytes));
  link->out_ring_ = reinterpret_cast<Ring*>(ring);
  link->out_ = RingProducer(link->out_ring_);
  const char* single_copy = std::getenv("COHORT_SHM_SINGLE_COPY");
  uint64_t word = 0;
  // Either may read the other, or neither.
  link->readable_ = (single_copy == nullptr || absl::string_view(single_copy) != "0") &&
                    link->process_.Read(probe, reinterpret_cast<std::byte*>(&word), sizeof(word)).ok() &&
                    word == kProbe;
  return link;
}

RingLink::~RingLink() {
  End("the link has ended");
  for (const Mapping& mapping : mappings_) SharedMemory::Unmap(mapping.data, WholePages(mapping.bytes));
  SharedMemory::Unmap(out_ring_, kHubRingBytes);
  uint64_t mine = engine_;
  if (claim_ >= 0) peer_hub_->board[claim_].compare_exchange_strong(mine, kLetGo);
  SharedMemory::Unmap(peer_hub_, kHubBytes);
  if (in_ring_ != nullptr) own_->StopReading(in_claim_, in_ring_, /*orphaned=*/!process_.Alive());
  if (knock_fd_ >= 0) close(knock_fd_);
}

bool RingLink::TrySend(const Frame& frame, absl::Span<const Piece> payload) {
  size_t bytes = sizeof(frame);
  for (const Piece& piece : payload) bytes += piece.bytes;
  std::byte* to = nullptr;
  Line* line = Reserve(bytes, &to);
  if (line == nullptr) return false;
  line->type = LineType::kFrame;
  std::memcpy(to, &frame, sizeof(frame));
  to += sizeof(frame);
  for (const Piece& piece : payload) {
    if (piece.bytes > 0) std::memcpy(to, piece.data, piece.bytes);
    to += piece.bytes;
  }
  Commit(line);
  return true;
}

void RingLink::WakePeer() {
  // A pipe whose reader is gone raises a signal besides, which ends processes that do not ignore it.
  sigset_t pipe, before;
  sigemptyset(&pipe);
  sigaddset(&pipe, SIGPIPE);
  pthread_sigmask(SIG_BLOCK, &pipe, &before);
  // A full pipe has knocked already.
  const bool gone = write(knock_fd_, "", 1) < 0 && errno == EPIPE;
  constexpr timespec kAtOnce = {};
  if (gone && !sigismember(&before, SIGPIPE)) (void)sigtimedwait(&pipe, nullptr, &kAtOnce);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (gone) CheckLife();
}

void RingLink::End(std::string why) {
  if (peer_hub_ != nullptr) Knock();
  if (broken_.empty()) broken_ = std::move(why);
}

bool RingLink::HasNews() {
  if (!broken_.empty()) return false;
  const std::byte* payload = nullptr;
  if (in_ring_ != nullptr) {
    if (in_.Peek(&payload) != nullptr) return true;
    if (own_->StillClaimed(in_claim_, peer_)) return false;
    // The peer has let go of it: it may have added this engine anew.
    own_->StopReading(in_claim_, std::exchange(in_ring_, nullptr), /*orphaned=*/false);
  }
  in_claim_ = own_->Claimed(peer_);
  if (in_claim_ < 0) return false;
  in_ring_ = own_->StartReading(in_claim_);
  if (in_ring_ == nullptr) return false;
  in_ = RingConsumer(in_ring_);
  return in_.Peek(&payload) != nullptr;
}

void RingLink::CheckLife() {
  if (broken_.empty() && !process_.Alive()) broken_ = absl::StrCat("process ", process_.pid(), " has ended");
}

void RingLink::SayDoneBelow(uint64_t op) {
  if (in_ring_ == nullptr) return;
  in_ring_->done_below.store(op, std::memory_order_seq_cst);
  news_ = true;
}

void RingLink::Map(uint64_t region) {
  const uint32_t slot = RegionSlot(region);
  if (slot >= mappings_.size()) mappings_.resize(slot + 1);
  Mapping& mapping = mappings_[slot];
  SharedMemory::Unmap(mapping.data, WholePages(mapping.bytes));
  mapping = {region, nullptr, 0};
  const Export& offered = peer_hub_->exports[slot];
  const uint64_t bytes = offered.bytes.load(std::memory_order_acquire);
  const absl::StatusOr<SharedMemory> memory =
      SharedMemory::Open(process_.pid(), offered.fd.load(std::memory_order_acquire), WholePages(bytes));
  // The owner withdraws an offer before it closes the file, and its pid is not another's while it lives.
  if (!memory.ok() || offered.number.load(std::memory_order_seq_cst) != region || !process_.Alive()) return;
  if (const absl::StatusOr<std::byte*> data = memory->Map(0, WholePages(bytes)); data.ok()) {
    mapping.data = *data;
    mapping.bytes = bytes;
  }
}

void RingLink::DropWithdrawn() {
  for (size_t slot = 0; slot < mappings_.size(); ++slot) {
    Mapping& mapping = mappings_[slot];
    if (mapping.data == nullptr ||
        peer_hub_->exports[slot].number.load(std::memory_order_relaxed) == mapping.number)
      continue;
    SharedMemory::Unmap(mapping.data, WholePages(mapping.bytes));
    mapping = {};
  }
}

bool RingLink::Revoke(int64_t nanos) {
  if (in_ring_ == nullptr) return true;  // it has not heard of this engine, and writes nothing
  in_ring_->revoked.store(1, std::memory_order_seq_cst);
  for (const int64_t give_up = NowNanos() + nanos; in_ring_->writing.load(std::memory_order_seq_cst) != 0;) {
    if (!process_.Alive()) return true;
    if (NowNanos() > give_up) return false;
    sched_yield();
  }
  return true;
}

bool RingLink::Claim(uint32_t slot, uint32_t generation) {
  if (slot >= policy::kTransferSlots) return false;
  uint64_t seen = SlotWord(generation, SlotState::kPosted);
  const uint64_t claimed = SlotWord(generation, SlotState::kClaimed);
  return peer_hub_->slots[slot].word.compare_exchange_strong(seen, claimed) || seen == claimed;
}

bool RingLink::Confirm(uint32_t slot, uint32_t generation, bool taken) {
  uint64_t claimed = SlotWord(generation, SlotState::kClaimed);
  return peer_hub_->slots[slot].word.compare_exchange_strong(
      claimed, SlotWord(generation, taken ? SlotState::kTaken : SlotState::kRefused));
}

}  // namespace cohort::comm::transfer
