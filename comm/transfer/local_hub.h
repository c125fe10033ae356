// What an engine shares with the engines of its host.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "comm/transfer/policy.h"
#include "comm/transfer/ring.h"
#include "comm/transfer/shared_memory.h"

namespace cohort::comm::transfer {

// Where a source waits until the target has read a large write: generation << 8 | state.
enum class SlotState : uint8_t { kFree, kPosted, kClaimed, kTaken, kRefused, kWithdrawn };
inline constexpr uint64_t SlotWord(uint32_t generation, SlotState state) {
  return static_cast<uint64_t>(generation) << 8 | static_cast<uint64_t>(state);
}

// A region that peers may map: `number` is that of the region, 0 where there is none (any more).
struct Export {
  std::atomic<uint64_t> number;
  std::atomic<uint64_t> bytes;
  std::atomic<int32_t> fd;
};

// The segment's start; rings follow, each mapped by itself: ring r is written by who has claimed it on the board.
struct HubLayout {
  uint64_t nonce;
  alignas(64) std::atomic<uint32_t> sleepers;
  alignas(64) std::atomic<uint64_t> board[policy::kTransferLocalPeers];
  struct Slot {
    alignas(64) std::atomic<uint64_t> word;
  } slots[policy::kTransferSlots];
  alignas(64) Export exports[policy::kTransferExports];  // by the region's slot
};
inline constexpr size_t kHubBytes = WholePages(sizeof(HubLayout));
inline constexpr size_t kHubRingBytes = WholePages(sizeof(Ring));
inline constexpr size_t kHubSegmentBytes = kHubBytes + kHubRingBytes * policy::kTransferLocalPeers;
inline constexpr off_t HubRingOffset(int ring) {
  return static_cast<off_t>(kHubBytes + kHubRingBytes * static_cast<size_t>(ring));
}

// This engine's side of it. Peers claim a ring with the number of their engine, by a compare-and-swap on the
// board; in slots, this engine's own large writes are answered.
class LocalHub {
 public:
  static absl::StatusOr<std::unique_ptr<LocalHub>> Create();
  ~LocalHub();

  // What peers need, as text without spaces.
  std::string Card() const;
  // Who may be asked to look when something was put in a ring.
  int wake_fd() const { return pipe_[0]; }
  // Peers write to the pipe only between the two. BeginSleep before a last look at the rings.
  void BeginSleep() { layout_->sleepers.fetch_add(1, std::memory_order_seq_cst); }
  void EndSleep();

  // The number of the ring that a peer's engine has claimed, or -1 yet; and its memory.
  int Claimed(uint64_t engine) const;
  Ring* StartReading(int ring);
  bool StillClaimed(int ring, uint64_t engine) const {
    return layout_->board[ring].load(std::memory_order_acquire) == engine;
  }
  // `orphaned`: nobody will let go of it, as its writer has died.
  void StopReading(int ring, Ring* memory, bool orphaned);
  // Frees the rings that their writers have let go of and nobody reads.
  void Sweep();

  // From here on peers may map a region, until Withdraw.
  void Offer(uint32_t slot, uint64_t number, int fd, uint64_t bytes);
  void Withdraw(uint32_t slot) { layout_->exports[slot].number.store(0, std::memory_order_seq_cst); }

  // Slots of writes that targets read from this process.
  uint32_t TakeSlot();  // 0: none free
  void FreeSlot(uint32_t slot) { free_slots_.push_back(slot); }
  uint32_t Post(uint32_t slot);  // a new generation
  // Takes a write back; false where the target has it all.
  bool TakeBack(uint32_t slot, uint32_t generation);

 private:
  explicit LocalHub(SharedMemory memory) : memory_(std::move(memory)) {}

  SharedMemory memory_;
  HubLayout* layout_ = nullptr;
  int pipe_[2] = {-1, -1};
  std::vector<bool> reading_;
  std::vector<uint32_t> free_slots_;
  std::vector<uint32_t> generations_;
};

// In the board: its claimer has let go of the ring.
inline constexpr uint64_t kLetGo = 1;
// Peers read this word to find out whether they may read this process's memory.
inline constexpr uint64_t kProbe = 0x636f686f72747472;

}  // namespace cohort::comm::transfer
