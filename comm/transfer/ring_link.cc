#include "comm/transfer/ring_link.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "comm/check.h"

namespace cohort::comm::transfer {
namespace {

// Peers read this to find out whether they may.
constexpr uint64_t kProbe = 0x636f686f72747472;
const volatile uint64_t probe_word = kProbe;
// In the board: its claimer has let go of the ring.
constexpr uint64_t kLetGo = 1;

}  // namespace

absl::StatusOr<std::unique_ptr<LocalHub>> LocalHub::Create() {
  COHORT_ASSIGN_OR_RETURN(auto segment, shm::Segment::Create());
  auto hub = std::unique_ptr<LocalHub>(new LocalHub(std::move(segment)));
  if (pipe2(hub->pipe_, O_CLOEXEC | O_NONBLOCK) != 0) return absl::ErrnoToStatus(errno, "pipe");
  for (uint32_t slot = policy::kShmSlots - 1; slot > 0; --slot) hub->free_slots_.push_back(slot);
  hub->generations_.resize(policy::kShmSlots);
  hub->reading_.resize(policy::kBoardEntries);
  shm::AllowReaders();
  return hub;
}

LocalHub::~LocalHub() {
  for (const int fd : pipe_) {
    if (fd >= 0) close(fd);
  }
}

std::string LocalHub::Card() const {
  return absl::StrCat(getpid(), ",", shm::StartTime(getpid()).value_or(0), ",", segment_->fd(), ",",
                      (*segment_)->nonce, ",", pipe_[1], ",", reinterpret_cast<uintptr_t>(&probe_word));
}

void LocalHub::EndSleep() {
  (*segment_)->doorbell.EndSleep();
  char knocks[64];
  while (read(pipe_[0], knocks, sizeof(knocks)) == sizeof(knocks)) {
  }
}

int LocalHub::Claimed(uint64_t engine) const {
  for (uint32_t i = 0; i < policy::kBoardEntries; ++i) {
    if ((*segment_)->board[i].load(std::memory_order_acquire) == engine && !reading_[i])
      return static_cast<int>(i);
  }
  return -1;
}

shm::Ring* LocalHub::StartReading(int ring) {
  const absl::StatusOr<shm::Ring*> memory = segment_->MapRing(ring);
  if (!memory.ok()) return nullptr;
  reading_[ring] = true;
  return *memory;
}

bool LocalHub::StillClaimed(int ring, uint64_t engine) const {
  return (*segment_)->board[ring].load(std::memory_order_acquire) == engine;
}

void LocalHub::StopReading(int ring, shm::Ring* memory, bool orphaned) {
  shm::Segment::Unmap(memory);
  reading_[ring] = false;
  if (orphaned) (*segment_)->board[ring].store(kLetGo);
  Sweep();
}

void LocalHub::Sweep() {
  for (uint32_t i = 0; i < policy::kBoardEntries; ++i) {
    if (reading_[i] || (*segment_)->board[i].load() != kLetGo) continue;
    segment_->Drop(static_cast<int>(i));
    (*segment_)->board[i].store(0);
  }
}

uint32_t LocalHub::TakeSlot() {
  if (free_slots_.empty()) return 0;
  const uint32_t slot = free_slots_.back();
  free_slots_.pop_back();
  return slot;
}

void LocalHub::FreeSlot(uint32_t slot) { free_slots_.push_back(slot); }

uint32_t LocalHub::Post(uint32_t slot) {
  const uint32_t generation = ++generations_[slot];
  (*segment_)->slots[slot].word.store(shm::SlotWord(generation, shm::SlotState::kPosted));
  return generation;
}

bool LocalHub::Withdraw(uint32_t slot, uint32_t generation) {
  std::atomic<uint64_t>& word = (*segment_)->slots[slot].word;
  const uint64_t withdrawn = shm::SlotWord(generation, shm::SlotState::kWithdrawn);
  for (uint64_t seen = word.load(); seen != shm::SlotWord(generation, shm::SlotState::kTaken);) {
    if (word.compare_exchange_weak(seen, withdrawn)) return true;
  }
  return false;
}

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
  COHORT_ASSIGN_OR_RETURN(auto segment, shm::Segment::Attach(pid, fd, nonce));
  auto link = std::unique_ptr<RingLink>(new RingLink(own, std::move(process), std::move(segment)));
  link->knock_fd_ =
      open(absl::StrCat("/proc/", pid, "/fd/", knock).c_str(), O_WRONLY | O_CLOEXEC | O_NONBLOCK);
  if (link->knock_fd_ < 0) return absl::ErrnoToStatus(errno, "shared memory: a peer's pipe");
  link->engine_ = engine;
  link->peer_ = peer;
  own->Sweep();
  for (int i = 0; i < static_cast<int>(policy::kBoardEntries) && link->claim_ < 0; ++i) {
    uint64_t free = 0;
    if ((*link->segment_)->board[i].compare_exchange_strong(free, engine)) link->claim_ = i;
  }
  if (link->claim_ < 0) {
    return absl::ResourceExhaustedError(
        absl::StrCat("process ", pid, " has ", policy::kBoardEntries, " peers on its host already"));
  }
  COHORT_ASSIGN_OR_RETURN(link->out_ring_, link->segment_->MapRing(link->claim_));
  link->out_ = shm::RingProducer(link->out_ring_);
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
  shm::Segment::Unmap(out_ring_);
  uint64_t mine = engine_;
  if (claim_ >= 0) (*segment_)->board[claim_].compare_exchange_strong(mine, kLetGo);
  if (in_ring_ != nullptr) own_->StopReading(in_claim_, in_ring_, /*orphaned=*/!process_.Alive());
  if (knock_fd_ >= 0) close(knock_fd_);
}

bool RingLink::TrySend(const Frame& frame, absl::Span<const Piece> payload) {
  if (!broken_.empty()) return false;
  size_t bytes = sizeof(frame);
  for (const Piece& piece : payload) bytes += piece.bytes;
  std::byte* to = nullptr;
  shm::Entry* entry = out_.Reserve(bytes, &to);
  if (entry == nullptr) return false;
  std::memcpy(to, &frame, sizeof(frame));
  to += sizeof(frame);
  for (const Piece& piece : payload) {
    if (piece.bytes > 0) std::memcpy(to, piece.data, piece.bytes);
    to += piece.bytes;
  }
  out_.Commit(entry);
  news_ = true;
  return true;
}

void RingLink::Knock() {
  if (!news_) return;
  news_ = false;
  if ((*segment_)->doorbell.sleepers.load(std::memory_order_seq_cst) == 0) return;
  // A full pipe has knocked already.
  if (write(knock_fd_, "", 1) < 0 && errno == EPIPE) CheckLife();
}

void RingLink::End(std::string why) {
  Knock();
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
  in_ = shm::RingConsumer(in_ring_);
  return in_.Peek(&payload) != nullptr;
}

bool RingLink::Drain(LinkEvents* events, size_t budget) {
  if (!HasNews()) return false;
  size_t moved = 0;
  const std::byte* payload = nullptr;
  while (moved < budget && broken_.empty()) {
    const shm::Entry* entry = in_.Peek(&payload);
    if (entry == nullptr) break;
    Frame frame;
    const size_t bytes = entry->payload_bytes;
    if (bytes >= sizeof(frame) && bytes <= policy::kShmRingBytes) {
      std::memcpy(&frame, payload, sizeof(frame));
      events->OnFrame(frame, {payload + sizeof(frame), bytes - sizeof(frame)});
    }
    moved += sizeof(frame) + bytes;
    in_.Release();
  }
  in_.Publish();
  return moved > 0;
}

void RingLink::CheckLife() {
  if (broken_.empty() && !process_.Alive()) broken_ = absl::StrCat("process ", process_.pid(), " has ended");
}

absl::Status RingLink::Read(uint64_t address, void* to, size_t bytes) const {
  return process_.Read(address, static_cast<std::byte*>(to), bytes);
}

bool RingLink::Claim(uint32_t slot, uint32_t generation) {
  if (slot >= policy::kShmSlots) return false;
  uint64_t seen = shm::SlotWord(generation, shm::SlotState::kPosted);
  const uint64_t claimed = shm::SlotWord(generation, shm::SlotState::kClaimed);
  return (*segment_)->slots[slot].word.compare_exchange_strong(seen, claimed) || seen == claimed;
}

bool RingLink::Confirm(uint32_t slot, uint32_t generation, bool taken) {
  uint64_t claimed = shm::SlotWord(generation, shm::SlotState::kClaimed);
  return (*segment_)->slots[slot].word.compare_exchange_strong(
      claimed, shm::SlotWord(generation, taken ? shm::SlotState::kTaken : shm::SlotState::kRefused));
}

}  // namespace cohort::comm::transfer
