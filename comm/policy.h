// Limits, thresholds and waits that the whole communication core shares; those of one part of it are in the policy.h of
// its folder. Values that all ranks must agree on say so.
#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/time/time.h"

namespace cohort::comm::policy {

// How long an operation waits for its peers before it fails and names the late ones, where nobody says
// otherwise.
inline constexpr absl::Duration kTimeout = absl::Seconds(120);

// ---- Waiting: spin, then yield, then sleep ----

// Polls before a waiting thread begins to yield: where each rank of the host has a core of its own, and
// where not.
inline constexpr int kSpinPolls = 1000;
inline constexpr int kSpinPollsShared = 4;
// For so long it yields before it sleeps on the doorbell, where each rank has a core of its own (waking a core that
// sleeps takes longer than most waits), and where not.
inline constexpr int64_t kYieldNanos = 1'000'000;
inline constexpr int64_t kYieldNanosShared = 200'000;
// Where messages come over a network, each of which takes longer, whoever has the cores.
inline constexpr int64_t kNetworkYieldNanos = 2'000'000;
// The longest sleep: peers are checked for life after each.
inline constexpr int64_t kMaxSleepNanos = 10'000'000;
// The longest sleep while messages wait for room in a ring, whose freeing rings no bell.
inline constexpr int64_t kBacklogSleepNanos = 100'000;
// How often deadlines and the life of peers are checked while messages keep moving.
inline constexpr int64_t kCheckNanos = 10'000'000;
// Polls between two looks at the clock.
inline constexpr int kPollsPerClock = 64;
// The thread that answers peers while nobody waits looks this often whether it is needed, and so soon again where it
// could not arm the network.
inline constexpr int64_t kNetworkIdleLookNanos = 20'000'000;
inline constexpr int64_t kNetworkRetryNanos = 100'000;

// ---- The background thread ----

// It looks this often whether operations were left to it, and takes them over.
inline constexpr int64_t kTakeoverNanos = 250'000;
// After this long without operations it sleeps until the next one is started.
inline constexpr int64_t kLingerNanos = 20'000'000;
// The longest sleep of an idle thread, which is woken when an operation starts.
inline constexpr int64_t kIdleNanos = 1'000'000'000;
// Copies and pulls up to this size are made inside the call that finds them; larger ones as progress is made.
inline constexpr size_t kInlineBytes = 32 << 10;
// Bytes that one look at the transports moves before the lock is offered to others.
inline constexpr size_t kProgressBytes = 512 << 10;

// ---- Memory ----

// Copies are made in blocks of this size.
inline constexpr size_t kCopyBlockBytes = 128 << 10;
// Last copies into the output of calls whose buffers take this much are written past the caches.
inline constexpr size_t kPastCachesBytes = 16 << 20;
// Scratch begins where the widest vectors and cache lines do.
inline constexpr size_t kScratchAlignment = 64;
// Scratch that a group keeps for calls that come again, of all kinds of calls together.
inline constexpr size_t kScratchKept = 64 << 20;
// A pull moves this much at a time into place, or this much into a buffer that it reduces from (half an L2).
inline constexpr size_t kPullBytes = 1 << 20;
inline constexpr size_t kPullReduceBytes = 128 << 10;

// ---- Peers that are silent ----

// While operations wait, silence of a peer for longer than this (COHORT_PEER_SILENCE_MS) is loss: its host or link is
// down, or its process is stopped.
inline constexpr int64_t kPeerSilenceNanos = 700'000'000;
// One look at the peers counts for at most this much silence: this rank may have been stopped itself. So often are
// processes of the own host looked at.
inline constexpr int64_t kSilenceLookNanos = 50'000'000;

// ---- Rendezvous ----

// Pauses between two looks for a key.
inline constexpr absl::Duration kRendezvousFirstPause = absl::Microseconds(100);
inline constexpr absl::Duration kRendezvousLongestPause = absl::Milliseconds(20);
// Of those who wait to be taken into a live group, and of its members who wait for them.
inline constexpr absl::Duration kJoinLongestPause = absl::Milliseconds(5);

// ---- Groups ----

// Members that a world can have in its life: numbers are not used again.
inline constexpr int kMaxMembers = 1 << 16;
// Decisions of past edits kept for members that missed them.
inline constexpr size_t kDecisionsKept = 64;
// Failed operations of a group that are remembered for peers that call them later.
inline constexpr size_t kFailuresKept = 32;
// A rank that was seen waiting for others within this time (or three fourths of the time that the operation has taken,
// where that is less) is not the one that is late. A rank that waits shows it this often, and names so many of those
// it waits for.
inline constexpr int64_t kWaitingNanos = 250'000'000;
inline constexpr int64_t kShowWaitingNanos = 5'000'000;
inline constexpr size_t kAwaitedPublished = 14;
// What the flight recorder holds: operations, groups, and failures with their messages.
inline constexpr uint64_t kFlightOperations = 512;
inline constexpr size_t kFlightGroups = 64;
inline constexpr size_t kFlightRemarks = 64;
inline constexpr size_t kFlightMessageBytes = 1000;
// Agreements in one edit, where members keep dying in between.
inline constexpr int kEditAttempts = 16;
// So many of the members, those of the lowest ranks, write invitations to newcomers.
inline constexpr int kInviters = 3;
// Groups of one rank whose progress is on the board that names late ranks.
inline constexpr uint32_t kBoardEntries = 256;
// Schedules kept by a group, the least recently used goes first.
inline constexpr size_t kScheduleCache = 32;

// ---- Prices ----

// Messages between hosts up to this size leave whole; larger ones come in pieces as the receiver is ready.
inline constexpr size_t kWholeBytes = 60 << 10;
// Messages of a pattern that are priced one by one; beyond, repeated rounds are priced by their slowest member.
inline constexpr size_t kReplayedMessages = 8 << 20;
// An eighth of the former, but at most so many, are priced in the order of time, of at most so many ranks.
inline constexpr size_t kMostOrdered = 128 << 10;
inline constexpr int kMostRanksOrdered = 1024;

}  // namespace cohort::comm::policy
