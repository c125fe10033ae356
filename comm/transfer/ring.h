// What one process of a host writes to another: lines of a cache line each, and payloads beside them. One
// producer, one consumer; each end is used by one thread at a time.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "comm/fence.h"
#include "comm/transfer/policy.h"

namespace cohort::comm::transfer {

enum class LineType : uint8_t {
  kFrame,  // the payload is a Frame and what belongs to it
  kWrite,  // a whole small write: the payload is its bytes
  kCount,  // of a write whose bytes its source has put into place: its number, its immediate
};

// A line carries all of a write whose bytes fit: so it costs the hand-over of one cache line.
struct Line {
  std::atomic<uint32_t> stamp;  // its number in the ring plus one, once complete
  LineType type;
  uint8_t flags;  // as in frames
  uint16_t unused;
  uint32_t bytes;  // of the payload: inlined where it fits
  // The low halves of the numbers that frames carry.
  uint32_t from;
  uint32_t to;
  uint32_t op;
  uint32_t done_below;
  uint32_t immediate;
  uint64_t region;
  uint64_t offset;
  std::byte inlined[16];
};
static_assert(sizeof(Line) == 64);
inline constexpr size_t kInlineBytes = sizeof(Line::inlined);

// The whole of a number whose low half is `low`, and which is near `near`.
inline uint64_t Whole(uint32_t low, uint64_t near) {
  return near +
         static_cast<uint64_t>(static_cast<int64_t>(static_cast<int32_t>(low - static_cast<uint32_t>(near))));
}

// Zero bytes are an empty ring.
struct Ring {
  // Written by the consumer. `done_below` is that of frames, where none was there to say it.
  alignas(64) std::atomic<uint32_t> consumed_lines;
  std::atomic<uint64_t> consumed_payload;
  std::atomic<uint64_t> done_below;
  // The producer must not write into the consumer's memory any more.
  alignas(64) std::atomic<uint32_t> revoked;
  // Written by the producer: it is writing there.
  alignas(64) std::atomic<uint32_t> writing;
  alignas(64) Line lines[policy::kTransferRingLines];
  alignas(64) std::byte payload[policy::kTransferRingBytes];
};

// Payloads begin where any element may, and never wrap.
class RingCursor {
 protected:
  // From where a payload of so many bytes lies, and to where.
  static uint64_t Begin(uint64_t position, size_t bytes) {
    const uint64_t at = position % policy::kTransferRingBytes;
    return at + Room(bytes) > policy::kTransferRingBytes ? position + policy::kTransferRingBytes - at
                                                         : position;
  }
  static uint64_t Room(size_t bytes) { return (bytes + 15) & ~uint64_t{15}; }

  uint32_t next_ = 0;
  uint64_t position_ = 0;
  uint64_t end_ = 0;
};

class RingProducer : RingCursor {
 public:
  explicit RingProducer(Ring* ring = nullptr) : ring_(ring) {}

  // A line to fill, with room for `bytes` at *payload; nullptr where the ring is full. Commit shows it.
  Line* Reserve(size_t bytes, std::byte** payload) {
    Line* line = &ring_->lines[next_ % policy::kTransferRingLines];
    *payload = line->inlined;
    end_ = position_;
    if (bytes > kInlineBytes) {
      const uint64_t begin = Begin(position_, bytes);
      end_ = begin + Room(bytes);
      *payload = ring_->payload + begin % policy::kTransferRingBytes;
    }
    if (!HasRoom()) {
      consumed_lines_ = ring_->consumed_lines.load(std::memory_order_acquire);
      consumed_payload_ = ring_->consumed_payload.load(std::memory_order_acquire);
      if (!HasRoom()) return nullptr;
    }
    line->bytes = static_cast<uint32_t>(bytes);
    return line;
  }

  // Before a look at who sleeps.
  void Commit(Line* line) {
    position_ = end_;
    StoreAndFence(line->stamp, ++next_);
  }

 private:
  bool HasRoom() const {
    return next_ - consumed_lines_ < policy::kTransferRingLines &&
           end_ - consumed_payload_ <= policy::kTransferRingBytes;
  }

  Ring* ring_;
  uint32_t consumed_lines_ = 0;
  uint64_t consumed_payload_ = 0;
};

class RingConsumer : RingCursor {
 public:
  explicit RingConsumer(Ring* ring = nullptr) : ring_(ring) {}

  // The next line and its payload, or nullptr. Valid until Release.
  const Line* Peek(const std::byte** payload) {
    const Line* line = &ring_->lines[next_ % policy::kTransferRingLines];
    if (line->stamp.load(std::memory_order_seq_cst) != next_ + 1) return nullptr;
    *payload = line->inlined;
    end_ = position_;
    if (line->bytes > kInlineBytes) {
      const uint64_t begin = Begin(position_, line->bytes);
      end_ = begin + Room(line->bytes);
      *payload = ring_->payload + begin % policy::kTransferRingBytes;
    }
    return line;
  }

  // Gives it back, if not at once: whoever writes the ring looks when it seems to be full.
  void Release() {
    ++next_;
    position_ = end_;
    if (next_ - published_lines_ >= policy::kTransferRingLines / 4 ||
        position_ - published_payload_ >= policy::kTransferRingBytes / 8)
      Publish();
  }

 private:
  void Publish() {
    published_lines_ = next_;
    published_payload_ = position_;
    ring_->consumed_payload.store(position_, std::memory_order_release);
    ring_->consumed_lines.store(next_, std::memory_order_release);
  }

  Ring* ring_;
  uint32_t published_lines_ = 0;
  uint64_t published_payload_ = 0;
};

}  // namespace cohort::comm::transfer
