// Sizes of the segments, rings and slots of shared memory, and which way messages take through it.
#pragma once

#include <cstddef>
#include <cstdint>

namespace cohort::comm::policy {

// Messages up to the first size are copied through the ring, those larger than the second never are. Otherwise what goes
// by is measured (comm/transport/shm/body_way.h).
inline constexpr size_t kShmCopiedBytes = 4 << 10;
inline constexpr size_t kShmEagerBytes = 64 << 10;
// So many messages are a trial of another way, the first of which may find caches cold. Pauses between trials are so
// many messages, times the square of how much slower that way is. What is used stays unless it is so much slower.
inline constexpr size_t kShmTrialMessages = 4;
inline constexpr double kShmTrialPause = 64;
inline constexpr uint32_t kShmLongestTrialPause = 1 << 16;
inline constexpr double kShmClearly = 1.1;
// What a pair of ranks lends at a time (comm/transport/shm/page_pipe.h), and about what all pairs of a host do together:
// half of what systems grant a user. Pipes below the least size are not worth their descriptors.
inline constexpr size_t kShmLentBytes = 1 << 20;
inline constexpr size_t kShmLentBytesOfHost = 32 << 20;
inline constexpr size_t kShmLeastLentBytes = 32 << 10;
// A receiver takes this much of it in one call, for which its sender may have to wait.
inline constexpr size_t kShmBorrowBytes = 256 << 10;
// Where the receiver cannot read the sender's memory, bodies come through the ring in fragments of this size.
inline constexpr size_t kShmFragmentBytes = 16 << 10;
// Descriptors and payload bytes of the ring of one ordered pair of ranks. Powers of two.
inline constexpr uint32_t kShmRingEntries = 256;
inline constexpr uint32_t kShmRingBytes = 128 << 10;
// Announced messages of one rank in flight at a time.
inline constexpr uint32_t kShmSlots = 1024;

}  // namespace cohort::comm::policy
