// The limits, waits and sizes of device communicators, in one place. Values that all ranks must agree on say so.
#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/time/time.h"

namespace cohort::comm::nccl::policy {

// ---- Waiting ----

// Who waits for an operation looks at its event this often at once, then yields for so long, then sleeps.
inline constexpr int kSpinPolls = 100;
inline constexpr absl::Duration kYieldTime = absl::Microseconds(500);
inline constexpr absl::Duration kWaitSleep = absl::Microseconds(50);
// Pauses of the watcher: while pieces are exchanged between hosts (their latency), while operations are in flight (their
// errors and deadlines), and otherwise.
inline constexpr absl::Duration kExchangePause = absl::Microseconds(20);
inline constexpr absl::Duration kBusyPause = absl::Microseconds(500);
inline constexpr absl::Duration kIdlePause = absl::Milliseconds(20);
// Pauses between two looks whether NCCL has done what it does in the background.
inline constexpr absl::Duration kPendingPause = absl::Microseconds(100);

// ---- The watch over peers ----

// Ranks tell each other this often how far they are: with operations in flight, and without. In between nothing is known
// of who is late, but the loss of a peer is known from the next round on.
inline constexpr absl::Duration kPulse = absl::Milliseconds(5);
inline constexpr absl::Duration kIdlePulse = absl::Milliseconds(50);
// The latest collectives that a rank tells of. Equal on all ranks: it is part of the message.
inline constexpr size_t kTold = 8;
// Pauses between two looks at each other while NCCL's communicators are made.
inline constexpr absl::Duration kMeetingPause = absl::Milliseconds(2);

// ---- The end ----

// How long an abort waits for a call of NCCL's that another thread is in, and for NCCL to end what is in flight. After
// that the error is told all the same, and what NCCL still holds is left to it: freeing it could block for ever.
inline constexpr absl::Duration kLockPatience = absl::Milliseconds(500);
inline constexpr absl::Duration kAbortPatience = absl::Seconds(3);
// How long a communicator that is closed waits for the last round, and for NCCL to flush.
inline constexpr absl::Duration kClosePatience = absl::Seconds(2);

// ---- Between hosts (equal on all ranks) ----

// What a rank exchanges with its peers on other hosts is cut into pieces of this size, so many of which are in flight:
// while one is copied from the device, one is with the network and one is copied back. Large enough that starting a copy
// (some microseconds) is small beside moving it (1 MiB at 25 GB/s: 42 microseconds).
inline constexpr size_t kPieceBytes = size_t{1} << 20;
inline constexpr size_t kPiecesInFlight = 3;
// The two forms are timed with all-reduces of these sizes when a communicator of several hosts is made, the shortest of so
// many each.
inline constexpr size_t kTimedBytes[] = {size_t{4} << 10, size_t{4} << 20};
inline constexpr int kTimedTurns = 3;

}  // namespace cohort::comm::nccl::policy
