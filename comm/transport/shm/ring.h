// The two ends of a ring. Each is used by one thread at a time of one process.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "comm/fence.h"
#include "comm/transport/shm/policy.h"
#include "comm/transport/shm/segment.h"

namespace cohort::comm::shm {

// Payloads begin where any element may.
inline constexpr uint64_t PayloadRoom(uint64_t bytes) { return (bytes + 15) & ~uint64_t{15}; }

class RingProducer {
 public:
  explicit RingProducer(Ring* ring = nullptr) : ring_(ring) {}

  // A line to fill, with room for `payload_bytes` at *payload; nullptr where the ring
  // is full. Commit shows it.
  Entry* Reserve(size_t payload_bytes, std::byte** payload) {
    uint64_t from = position_;
    const uint64_t at = from % policy::kShmRingBytes;
    const uint64_t room = PayloadRoom(payload_bytes);
    if (at + room > policy::kShmRingBytes) from += policy::kShmRingBytes - at;  // payload never wraps
    if (!HasRoom(from + room)) {
      consumed_entries_ = ring_->consumed_entries.load(std::memory_order_acquire);
      consumed_payload_ = ring_->consumed_payload.load(std::memory_order_acquire);
      if (!HasRoom(from + room)) return nullptr;
    }
    reserved_ = from + room;
    if (payload != nullptr) *payload = ring_->payload + from % policy::kShmRingBytes;
    Entry* entry = &ring_->entries[next_ % policy::kShmRingEntries];
    entry->payload_bytes = static_cast<uint32_t>(payload_bytes);
    return entry;
  }

  void Commit(Entry* entry) {
    if (entry->payload_bytes > 0) position_ = reserved_;
    StoreAndFence(entry->stamp, ++next_);
    // The next line comes from the consumer's cache while this rank does something else.
    __builtin_prefetch(&ring_->entries[next_ % policy::kShmRingEntries], /*write=*/1);
  }

 private:
  bool HasRoom(uint64_t end) const {
    return next_ - consumed_entries_ < policy::kShmRingEntries &&
           end - consumed_payload_ <= policy::kShmRingBytes;
  }

  Ring* ring_;
  uint32_t next_ = 0;
  uint64_t position_ = 0;
  uint64_t reserved_ = 0;
  uint32_t consumed_entries_ = 0;
  uint64_t consumed_payload_ = 0;
};

class RingConsumer {
 public:
  explicit RingConsumer(Ring* ring = nullptr) : ring_(ring) {}

  // The next line and its payload, or nullptr. Valid until Release.
  const Entry* Peek(const std::byte** payload) {
    const Entry* entry = &ring_->entries[next_ % policy::kShmRingEntries];
    if (entry->stamp.load(std::memory_order_seq_cst) != next_ + 1) return nullptr;
    uint64_t from = position_;
    const uint64_t at = from % policy::kShmRingBytes;
    const uint64_t room = PayloadRoom(entry->payload_bytes);
    if (at + room > policy::kShmRingBytes) from += policy::kShmRingBytes - at;
    *payload = ring_->payload + from % policy::kShmRingBytes;
    end_ = room > 0 ? from + room : position_;
    return entry;
  }

  void Release() {
    ++next_;
    position_ = end_;
  }

  // Gives the producer back what was released.
  void Publish() {
    ring_->consumed_payload.store(position_, std::memory_order_release);
    ring_->consumed_entries.store(next_, std::memory_order_release);
  }

 private:
  Ring* ring_;
  uint32_t next_ = 0;
  uint64_t position_ = 0;
  uint64_t end_ = 0;
};

}  // namespace cohort::comm::shm
