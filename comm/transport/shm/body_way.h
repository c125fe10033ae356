// Which way a message of middling size goes to a rank of the same host.
//
// Through the ring two processors copy it, each fetching lines from the other's cache; read from the sender's memory it is
// copied once, by the kernel, at the price of a system call and of the pages it looks up. Which is faster depends on
// how far apart the two processors are, and on whether the sender has written its buffer since it was last read: if not, the
// reader's own cache may hold it. Measured for 64 KiB both ways at once, microseconds: threads of one core 5 by the
// ring, 8 read (9 where the buffer was written anew); cores with a cache in common 9, 6 (14); cores without one 32, 6 (39).
// The caller's program, its neighbours and the machine's scheduler decide which it is, and may change it. So the ranks
// measure what goes by, both sides of it, and try the other way now and then.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "comm/policy.h"

namespace cohort::comm::shm {

// Sizes of more than kShmCopiedBytes, up to kShmEagerBytes, by powers of two.
inline constexpr size_t kWaySizes = std::bit_width(policy::kShmEagerBytes / policy::kShmCopiedBytes) - 1;
inline bool HasWays(size_t bytes) {
  return bytes > policy::kShmCopiedBytes && bytes <= policy::kShmEagerBytes;
}
inline size_t WaySize(size_t bytes) {
  return static_cast<size_t>(std::bit_width((bytes - 1) / policy::kShmCopiedBytes)) - 1;
}

// The least of the last few: what is more is somebody else's, or the first touch of memory.
class RecentLeast {
 public:
  void Note(int64_t ticks) {
    recent_[next_++ % recent_.size()] =
        static_cast<uint32_t>(std::clamp<int64_t>(ticks, 1, std::numeric_limits<uint32_t>::max()));
  }
  // 0 where nothing was noted.
  uint32_t ticks() const {
    const size_t known = std::min<size_t>(next_, recent_.size());
    return known == 0 ? 0 : *std::min_element(recent_.begin(), recent_.begin() + known);
  }

 private:
  std::array<uint32_t, policy::kShmTrialMessages> recent_ = {};
  uint32_t next_ = 0;
};

// What messages took their receiver, in ticks; 0: not known. In shared memory, written by it and read by their sender.
// Ticks of two processes of one machine run at one rate, or nothing but the choice suffers.
struct TakenTicks {
  std::array<std::atomic<uint32_t>, kWaySizes> copied;  // out of the ring
  std::array<std::atomic<uint32_t>, kWaySizes> read;
};

// The receiver's side of it, of one sender.
class TakenNotes {
 public:
  void NoteCopied(size_t bytes, int64_t ticks, TakenTicks& to) {
    Show(copied_[WaySize(bytes)], ticks, to.copied[WaySize(bytes)]);
  }
  void NoteRead(size_t bytes, int64_t ticks, TakenTicks& to) {
    Show(read_[WaySize(bytes)], ticks, to.read[WaySize(bytes)]);
  }

 private:
  // Small changes are not shown: the sender holds the line in its cache.
  static void Show(RecentLeast& notes, int64_t ticks, std::atomic<uint32_t>& shown) {
    notes.Note(ticks);
    const uint32_t now = notes.ticks(), before = shown.load(std::memory_order_relaxed);
    const uint32_t change = now > before ? now - before : before - now;
    if (change > before / 16) shown.store(now, std::memory_order_relaxed);
  }

  std::array<RecentLeast, kWaySizes> copied_, read_;
};

// The sender's side, of one receiver: it chooses.
class BodyWay {
 public:
  // Whether the next message of that size is read by its receiver.
  bool Reads(size_t bytes, const TakenTicks& taken) {
    Way& way = ways_[WaySize(bytes)];
    const double copied =
        way.copied_in.ticks() + taken.copied[WaySize(bytes)].load(std::memory_order_relaxed);
    const double read = taken.read[WaySize(bytes)].load(std::memory_order_relaxed);
    const bool known = copied > 0 && read > 0;
    // What is used stays unless the other is clearly faster.
    if (known && way.trial_left == 0) {
      way.reads = way.reads ? read <= policy::kShmClearly * copied : policy::kShmClearly * read < copied;
    }
    if (way.trial_left == 0 && --way.until_trial == 0) way.trial_left = policy::kShmTrialMessages;
    if (way.trial_left == 0) return way.reads;
    if (--way.trial_left == 0) {
      // The slower the other way is, the more it costs to try it, and the less likely it has become the faster.
      const double slower = known ? std::max(copied, read) / std::min(copied, read) : 1;
      way.until_trial = static_cast<uint32_t>(
          std::min(policy::kShmTrialPause * slower * slower, double{policy::kShmLongestTrialPause}));
    }
    return !way.reads;
  }
  void NoteCopiedIn(size_t bytes, int64_t ticks) { ways_[WaySize(bytes)].copied_in.Note(ticks); }

 private:
  struct Way {
    RecentLeast copied_in;
    bool reads = false;
    uint32_t until_trial = policy::kShmTrialMessages + 1;  // first the ring, until it is known
    uint32_t trial_left = 0;
  };
  std::array<Way, kWaySizes> ways_;
};

}  // namespace cohort::comm::shm
