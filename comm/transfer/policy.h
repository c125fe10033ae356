// Limits, sizes and waits of the transfer engine.
#pragma once

#include <cstddef>
#include <cstdint>

namespace cohort::comm::policy {

// Yields of a waiting thread before it sleeps.
inline constexpr int kYieldPolls = 200;
// Large writes are cut for several rails into shards of at least this size, where options say nothing else.
inline constexpr uint64_t kMinShardBytes = 64 << 10;
// Frames to one peer that UCX holds at a time, on each rail.
inline constexpr int kTransferFramesInFlight = 16;
// Within a host: peers that an engine can have; the lines and payload bytes of a ring, powers of two; the payload of
// a frame, of which several fit.
inline constexpr uint32_t kTransferLocalPeers = 256;
inline constexpr uint32_t kTransferRingLines = 256;
inline constexpr uint32_t kTransferRingBytes = 128 << 10;
inline constexpr size_t kTransferRingFrameBytes = 30 << 10;
// Large writes of one engine that targets read at a time, and regions that peers can map.
inline constexpr uint32_t kTransferSlots = 1024;
inline constexpr uint32_t kTransferExports = 1024;
// Writes up to this size into memory that peers have mapped are copied there by their source, in the call.
inline constexpr uint64_t kTransferMappedBytes = 256 << 10;
// How long RemovePeer waits for a peer that is stopped in the middle of such a write.
inline constexpr int64_t kTransferRevokeNanos = 1'000'000'000;
// The engine's own thread looks as often as kTakeoverNanos (comm/policy.h) whether waits go on, and then, where all peers are
// on this host, ever less often down to this: it may share a core with those who wait, each of its looks costs them two
// changes of thread.
inline constexpr int64_t kTransferLongestNapNanos = 2'000'000;
// A write is an answer where it follows so soon on the word that a write of the peer is over; after so many, one at a time,
// the word waits for the next (answer_habit.h).
inline constexpr int64_t kTransferAnswerNanos = 20'000;
inline constexpr int kTransferQuickAnswers = 16;
// Where none comes, the engine's own thread says it so long after it has seen that nobody waits any more.
inline constexpr int64_t kTransferLastWordNanos = 50'000;
// Bytes that come in before who waits is told: of the first frame at once.
inline constexpr size_t kTransferWaiterBytes = 1;
// Looks at the rings that a waiting thread takes without letting go of the lock, and such turns until it looks at
// everything else.
inline constexpr int kTransferLooks = 16;
inline constexpr int kTransferTurns = 16;
// What callers waited for is used again when they have let go of it; an engine keeps so many.
inline constexpr size_t kTransferSpares = 64;
// Numbers of immediates that are kept while none is counted or expected: making them anew takes longer than a count.
inline constexpr size_t kTransferCountersKept = 256;
// Writes within a host that are larger are read by the target from the source's memory, so many ranges a frame.
inline constexpr uint64_t kTransferPullBytes = 8 << 10;
inline constexpr size_t kTransferPullExtents = 512;
// How long a closing engine lets its last frames go.
inline constexpr int64_t kTransferLingerNanos = 200'000'000;

}  // namespace cohort::comm::policy
