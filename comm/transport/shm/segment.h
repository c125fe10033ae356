// The memory that one rank shares with the other ranks of its host.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "comm/doorbell.h"
#include "comm/operation.h"
#include "comm/policy.h"
#include "comm/transport/message.h"
#include "comm/transport/shm/body_way.h"
#include "comm/transport/shm/policy.h"

namespace cohort::comm::shm {

enum class EntryType : uint8_t {
  kMessage,       // a whole message: inline, or in the payload area
  kAnnouncement,  // the body is at `address` in the sender
  kPush,  // the receiver cannot read the sender's memory: send the body of (slot, generation) to `address`
  kFragment,  // part of a body, for transfer `address`, from offset `bytes` on
  kAbort,     // the payload says why
};

// One line of a ring.
struct Entry {
  std::atomic<uint32_t> stamp;  // its number in the ring plus one, once complete
  EntryType type;
  uint8_t code;         // of an abort
  uint16_t lent_pages;  // of an announcement: in the sender's pipe (page_pipe.h)
  MessageKey key;
  uint32_t payload_bytes;
  Signature signature;
  uint64_t bytes;
  union {
    std::byte inlined[16];  // a message of up to 16 bytes with slot 0
    struct {
      uint64_t address;
      uint32_t slot;
      uint32_t generation;
    };
  };
};
static_assert(sizeof(Entry) == 64);
inline constexpr size_t kInlineEntryBytes = 16;

// Messages of one ordered pair of ranks: one producer, one consumer. Zero bytes are an empty ring.
struct Ring {
  // Written by the consumer.
  alignas(64) std::atomic<uint32_t> consumed_entries;
  std::atomic<uint64_t> consumed_payload;
  // Written by the producer: it has forgotten the consumer, and listens to it no more.
  std::atomic<uint32_t> dismissed;
  // Written once by the producer: the inode of its pipe, then its descriptor plus one.
  std::atomic<uint64_t> lender_inode;
  std::atomic<uint32_t> lender;
  // Written by the consumer, seldom.
  alignas(64) TakenTicks taken;
  std::atomic<uint32_t> cannot_borrow;  // it cannot read here, or could not open the pipe
  alignas(64) Entry entries[policy::kShmRingEntries];
  alignas(64) std::byte payload[policy::kShmRingBytes];
};

// Where a sender waits for the receiver's answer: generation << 8 | state. Withdrawn: the receiver gave the operation up,
// and it or who told it so tells the sender.
enum class SlotState : uint8_t { kFree, kPosted, kClaimed, kTaken, kRefused, kWithdrawn };
struct Slot {
  alignas(64) std::atomic<uint64_t> word;
};
inline constexpr uint64_t SlotWord(uint32_t generation, SlotState state) {
  return static_cast<uint64_t>(generation) << 8 | static_cast<uint64_t>(state);
}

struct SegmentLayout {
  uint64_t nonce;
  alignas(64) Doorbell doorbell;
  alignas(64) std::atomic<uint32_t> closed;
  // When a caller of the owner was last seen to be blocked, and by which ranks: the first of -1 ends them.
  alignas(64) std::atomic<int64_t> waiting;
  std::atomic<int32_t> awaited[policy::kAwaitedPublished];
  // Entry context % size: context << 32 | (sequence + 1) of the operation begun last.
  alignas(64) std::atomic<uint64_t> board[policy::kBoardEntries];
  Slot slots[policy::kShmSlots];
};

// A mapping of one segment: the layout at its start, and behind it, each mapped by itself, rings; ring r holds what
// member r sends to the segment's owner. The memory is anonymous (memfd): nothing has a name that could be left
// behind. Untouched rings cost no memory, so there is one for every member that may ever come.
class Segment {
 public:
  // This rank's own.
  static absl::StatusOr<std::unique_ptr<Segment>> Create();
  // That of a process on this host.
  static absl::StatusOr<std::unique_ptr<Segment>> Attach(int pid, int fd, uint64_t nonce);
  ~Segment();
  Segment(const Segment&) = delete;
  Segment& operator=(const Segment&) = delete;

  absl::StatusOr<Ring*> MapRing(int member);
  static void Unmap(Ring* ring);
  // Gives the memory of a ring back.
  void Drop(int member);

  SegmentLayout* operator->() const { return layout_; }
  int fd() const { return fd_; }

 private:
  Segment(SegmentLayout* layout, int fd) : layout_(layout), fd_(fd) {}

  SegmentLayout* layout_;
  int fd_;
};

}  // namespace cohort::comm::shm
