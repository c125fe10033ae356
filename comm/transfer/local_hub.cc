#include "comm/transfer/local_hub.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "comm/check.h"
#include "comm/transfer/card.h"
#include "comm/transfer/policy.h"
#include "comm/transport/shm/process.h"

namespace cohort::comm::transfer {
namespace {

const volatile uint64_t probe_word = kProbe;

}  // namespace

absl::StatusOr<std::unique_ptr<LocalHub>> LocalHub::Create() {
  COHORT_ASSIGN_OR_RETURN(SharedMemory memory, SharedMemory::Create(kHubSegmentBytes));
  auto hub = std::unique_ptr<LocalHub>(new LocalHub(std::move(memory)));
  COHORT_ASSIGN_OR_RETURN(std::byte* const start, hub->memory_.Map(0, kHubBytes));
  hub->layout_ = reinterpret_cast<HubLayout*>(start);
  hub->layout_->nonce = RandomNumber();
  if (pipe2(hub->pipe_, O_CLOEXEC | O_NONBLOCK) != 0) return absl::ErrnoToStatus(errno, "pipe");
  for (uint32_t slot = policy::kTransferSlots - 1; slot > 0; --slot) hub->free_slots_.push_back(slot);
  hub->generations_.resize(policy::kTransferSlots);
  hub->reading_.resize(policy::kTransferLocalPeers);
  shm::AllowReaders();
  return hub;
}

LocalHub::~LocalHub() {
  SharedMemory::Unmap(layout_, kHubBytes);
  for (const int fd : pipe_) {
    if (fd >= 0) close(fd);
  }
}

std::string LocalHub::Card() const {
  return absl::StrCat(getpid(), ",", shm::StartTime(getpid()).value_or(0), ",", memory_.fd(), ",",
                      layout_->nonce, ",", pipe_[1], ",", reinterpret_cast<uintptr_t>(&probe_word));
}

void LocalHub::EndSleep() {
  layout_->sleepers.fetch_sub(1, std::memory_order_relaxed);
  char knocks[64];
  while (read(pipe_[0], knocks, sizeof(knocks)) == sizeof(knocks)) {
  }
}

int LocalHub::Claimed(uint64_t engine) const {
  for (uint32_t i = 0; i < policy::kTransferLocalPeers; ++i) {
    if (layout_->board[i].load(std::memory_order_acquire) == engine && !reading_[i])
      return static_cast<int>(i);
  }
  return -1;
}

Ring* LocalHub::StartReading(int ring) {
  const absl::StatusOr<std::byte*> memory = memory_.Map(HubRingOffset(ring), kHubRingBytes);
  if (!memory.ok()) return nullptr;
  reading_[ring] = true;
  return reinterpret_cast<Ring*>(*memory);
}

void LocalHub::StopReading(int ring, Ring* memory, bool orphaned) {
  SharedMemory::Unmap(memory, kHubRingBytes);
  reading_[ring] = false;
  if (orphaned) layout_->board[ring].store(kLetGo);
  Sweep();
}

void LocalHub::Sweep() {
  for (uint32_t i = 0; i < policy::kTransferLocalPeers; ++i) {
    if (reading_[i] || layout_->board[i].load() != kLetGo) continue;
    memory_.Discard(HubRingOffset(static_cast<int>(i)), kHubRingBytes);
    layout_->board[i].store(0);
  }
}

void LocalHub::Offer(uint32_t slot, uint64_t number, int fd, uint64_t bytes) {
  Export& entry = layout_->exports[slot];
  entry.fd.store(fd, std::memory_order_relaxed);
  entry.bytes.store(bytes, std::memory_order_relaxed);
  entry.number.store(number, std::memory_order_release);
}

uint32_t LocalHub::TakeSlot() {
  if (free_slots_.empty()) return 0;
  const uint32_t slot = free_slots_.back();
  free_slots_.pop_back();
  return slot;
}

uint32_t LocalHub::Post(uint32_t slot) {
  const uint32_t generation = ++generations_[slot];
  layout_->slots[slot].word.store(SlotWord(generation, SlotState::kPosted));
  return generation;
}

bool LocalHub::TakeBack(uint32_t slot, uint32_t generation) {
  std::atomic<uint64_t>& word = layout_->slots[slot].word;
  const uint64_t withdrawn = SlotWord(generation, SlotState::kWithdrawn);
  for (uint64_t seen = word.load(); seen != SlotWord(generation, SlotState::kTaken);) {
    if (word.compare_exchange_weak(seen, withdrawn)) return true;
  }
  return false;
}

}  // namespace cohort::comm::transfer
