// Sizes of pieces, and waits, of the UCX transport.
#pragma once

#include <cstddef>
#include <cstdint>

#include "comm/policy.h"

namespace cohort::comm::policy {

// Messages up to this size travel whole; a larger one is announced with its first bytes, and then comes in
// pieces of this size: with its header, a piece fits the segments that UCX is set to (64 KiB).
inline constexpr size_t kUcxPieceBytes = kWholeBytes;
// What a peer is sent at most of messages that have not met their receives yet: what a link moves in a round trip.
inline constexpr size_t kUcxAheadBytes = 1 << 20;
// Pieces to one peer that UCX holds at a time.
inline constexpr int kUcxPiecesInFlight = 8;
// How often a rank says hello to one that it has not heard yet.
inline constexpr int64_t kUcxHelloNanos = 20'000'000;
// While operations wait, peers are asked for a sign of life this often.
inline constexpr int64_t kUcxPingNanos = 100'000'000;
// Interfaces of a host that are used side by side, at most. Over several, a receiver says what it has after so many
// frames, or with any frame of its own.
inline constexpr size_t kMaxRails = 8;
inline constexpr uint64_t kUcxFramesUnsaid = 4;
// How long a closing transport waits at most for peers, which are not silent, to say that they have everything, and for its
// endpoints to end. Peers on a busy machine may not come to it for long, and what they have not read is lost with the
// connection.
inline constexpr int64_t kUcxLingerNanos = 3'000'000'000;
inline constexpr int64_t kUcxEndNanos = 500'000'000;

}  // namespace cohort::comm::policy
