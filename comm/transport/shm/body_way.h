// Which way a message of more than a few pages goes to a rank of the same host.
//
// Through the ring two processors copy it, each fetching lines from the other's cache. Read from the sender's memory
// (process_vm_readv) or from pages that its sender has lent (page_pipe.h) it is copied once, by the kernel, at the price of
// system calls and of the pages that it looks up. Which is fastest depends on how far apart the two processors are, and
// on whether the sender has written its buffer since it was last read: if not, the reader's own cache may hold it.
// Measured for 64 KiB both ways at once, microseconds: threads of one core 5 by the ring, 8 read (9 where the buffer was
// written anew); cores with a cache in common 9, 6 (14), and 4 lent; cores without one 32, 6 (39). Lent pages cost cores
// without a common cache a line for every page: 512 KiB 39 lent, 36 read, and with one 26 lent, 32 read.
// The caller's program, its neighbours and the machine's scheduler decide which it is, and may change it. So the ranks
// measure what goes by, both sides of it, and try the other ways now and then.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>

#include "comm/transport/shm/policy.h"

namespace cohort::comm::shm {

enum class Way : uint8_t { kCopied, kRead, kLent };
inline constexpr size_t kWays = 3;

// A set of ways.
class OpenWays {
 public:
  OpenWays& Add(Way way, bool open = true) {
    if (open) bits_ |= 1u << static_cast<unsigned>(way);
    return *this;
  }
  bool Has(Way way) const { return (bits_ >> static_cast<unsigned>(way) & 1u) != 0; }
  // What is taken until all are known.
  Way Default() const { return Has(Way::kCopied) ? Way::kCopied : Has(Way::kLent) ? Way::kLent : Way::kRead; }

 private:
  unsigned bits_ = 0;
};

// Messages of more than kShmCopiedBytes have ways, which are measured by powers of two; the last are those of more than
// kShmLentBytes.
inline constexpr size_t kWaySizes = std::bit_width(policy::kShmLentBytes / policy::kShmCopiedBytes);
inline bool HasWays(size_t bytes) { return bytes > policy::kShmCopiedBytes; }
inline size_t WaySize(size_t bytes) {
  return std::min(static_cast<size_t>(std::bit_width((bytes - 1) / policy::kShmCopiedBytes)) - 1,
                  kWaySizes - 1);
}
// Ticks of a message as if it were the longest of its size; of the last, as if it had kShmLentBytes.
inline int64_t WholeTicks(size_t bytes, int64_t ticks) {
  const size_t whole = std::min(policy::kShmCopiedBytes << (WaySize(bytes) + 1), policy::kShmLentBytes);
  return static_cast<int64_t>(static_cast<double>(ticks) * static_cast<double>(whole) /
                              static_cast<double>(bytes));
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
  std::atomic<uint32_t> by[kWaySizes][kWays];
};

// The receiver's side of it, of one sender.
class TakenNotes {
 public:
  // Small changes are not shown: the sender holds the line in its cache.
  void Note(size_t bytes, Way way, int64_t ticks, TakenTicks& to) {
    const size_t size = WaySize(bytes), by = static_cast<size_t>(way);
    notes_[size][by].Note(WholeTicks(bytes, ticks));
    std::atomic<uint32_t>& shown = to.by[size][by];
    const uint32_t now = notes_[size][by].ticks(), before = shown.load(std::memory_order_relaxed);
    const uint32_t change = now > before ? now - before : before - now;
    if (change > before / 16) shown.store(now, std::memory_order_relaxed);
  }

 private:
  RecentLeast notes_[kWaySizes][kWays];
};

// The sender's side, of one receiver: it chooses.
class BodyWay {
 public:
  // The way of the next message, among those that are open.
  Way Next(size_t bytes, OpenWays open, const TakenTicks& taken) {
    Size& size = sizes_[WaySize(bytes)];
    if (!size.used || !open.Has(*size.used)) size.used = open.Default();
    if (size.trial_left == 0) {
      const double used = Ticks(size, *size.used, bytes, taken);
      // One that is still not known after another's trial never is: nothing was lent, say.
      double least = used > 0 || size.tries == 0 ? used : std::numeric_limits<double>::infinity();
      Way fastest = *size.used;
      for (const Way way : kAll) {
        const double ticks = open.Has(way) ? Ticks(size, way, bytes, taken) : 0;
        if (ticks > 0 && ticks < least) {
          least = ticks;
          fastest = way;
        }
      }
      // What is used stays unless another is clearly faster.
      if (used == 0 || policy::kShmClearly * least < used) size.used = fastest;
      if (--size.until_trial == 0) BeginTrial(size, open);
    }
    if (size.trial_left == 0) return *size.used;
    const Way tried = size.tried;
    if (--size.trial_left == 0) EndTrial(size, bytes, taken);
    return open.Has(tried) ? tried : *size.used;
  }
  // What the sender's part took.
  void NoteSent(size_t bytes, Way way, int64_t ticks) {
    sizes_[WaySize(bytes)].sent[static_cast<size_t>(way)].Note(WholeTicks(bytes, ticks));
  }

 private:
  static constexpr Way kAll[] = {Way::kCopied, Way::kRead, Way::kLent};

  struct Size {
    std::optional<Way> used;
    Way tried = Way::kCopied;
    uint32_t trial_left = 0;
    uint32_t tries = 0;
    uint32_t until_trial = policy::kShmTrialMessages + 1;  // first the default, until it is known
    RecentLeast sent[kWays];
  };

  // What a message takes both sides by that way; 0: not known. What is copied is known by its sender alone: where the
  // receiver is always late, it does not say.
  static double Ticks(const Size& size, Way way, size_t bytes, const TakenTicks& taken) {
    const auto by = static_cast<size_t>(way);
    const double received = taken.by[WaySize(bytes)][by].load(std::memory_order_relaxed);
    return received == 0 && way != Way::kCopied ? 0 : received + size.sent[by].ticks();
  }

  // The other ways take turns.
  static void BeginTrial(Size& size, OpenWays open) {
    for (size_t i = 1; i <= kWays; ++i) {
      const Way next = kAll[(static_cast<size_t>(size.tried) + i) % kWays];
      if (next == *size.used || !open.Has(next)) continue;
      size.tried = next;
      size.trial_left = policy::kShmTrialMessages;
      return;
    }
    size.until_trial = policy::kShmLongestTrialPause;  // there is no other
  }

  // The slower the other way is, the more it costs to try it, and the less likely it has become the faster.
  static void EndTrial(Size& size, size_t bytes, const TakenTicks& taken) {
    const double used = Ticks(size, *size.used, bytes, taken), tried = Ticks(size, size.tried, bytes, taken);
    const double slower = used > 0 && tried > 0 ? std::max(used, tried) / std::min(used, tried) : 1;
    size.until_trial = static_cast<uint32_t>(
        std::min(policy::kShmTrialPause * slower * slower, double{policy::kShmLongestTrialPause}));
    // The first time, all of them one after the other.
    if (++size.tries < kWays - 1) size.until_trial = policy::kShmTrialMessages + 1;
  }

  Size sizes_[kWaySizes];
};

}  // namespace cohort::comm::shm
