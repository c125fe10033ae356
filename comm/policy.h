// Every limit, threshold and wait of the communication core. Values that all ranks must agree on say so.
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
inline constexpr int kSpinPollsShared = 20;
// Yields before it sleeps on the doorbell: so many, or for so long, since on a busy machine each may cost a time slice.
inline constexpr int kYieldPolls = 200;
inline constexpr int64_t kYieldNanos = 200'000;
// The longest sleep: peers are checked for life after each.
inline constexpr int64_t kMaxSleepNanos = 10'000'000;
// The longest sleep while messages wait for room in a ring, whose freeing rings no bell.
inline constexpr int64_t kBacklogSleepNanos = 100'000;
// The longest sleep while a transport that cannot ring the bell (MPI) has peers.
inline constexpr int64_t kPollingSleepNanos = 100'000;
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

// ---- Peers that are silent ----

// While operations wait, silence of a peer for longer than this (COHORT_PEER_SILENCE_MS) is loss: its host or link is
// down, or its process is stopped.
inline constexpr int64_t kPeerSilenceNanos = 700'000'000;
// One look at the peers counts for at most this much silence: this rank may have been stopped itself. So often are
// processes of the own host looked at.
inline constexpr int64_t kSilenceLookNanos = 50'000'000;

// ---- Shared memory ----

// Messages up to this size are copied through the ring; larger ones are pulled by the receiver in one
// copy.
inline constexpr size_t kShmEagerBytes = 8 << 10;
// Descriptors and payload bytes of the ring of one ordered pair of ranks. Powers of two.
inline constexpr uint32_t kShmRingEntries = 256;
inline constexpr uint32_t kShmRingBytes = 128 << 10;
// Announced messages of one rank in flight at a time.
inline constexpr uint32_t kShmSlots = 1024;
// A pull moves this much at a time into place, or this much into a buffer that it reduces from (half an L2).
inline constexpr size_t kPullBytes = 256 << 10;
inline constexpr size_t kPullReduceBytes = 128 << 10;

// ---- UCX ----

// Messages up to this size travel whole; a larger one is announced with its first bytes, and then comes in
// pieces of this size: with its header, a piece fits the segments that UCX is set to (64 KiB).
inline constexpr size_t kUcxPieceBytes = 60 << 10;
// Pieces to one peer that UCX holds at a time.
inline constexpr int kUcxPiecesInFlight = 8;
// How often a rank says hello to one that it has not heard yet.
inline constexpr int64_t kUcxHelloNanos = 20'000'000;
// While operations wait, peers are asked for a sign of life this often.
inline constexpr int64_t kUcxPingNanos = 100'000'000;
// How long a closing transport waits for its peers to say that they have everything, and for its endpoints to end.
inline constexpr int64_t kUcxLingerNanos = 500'000'000;
inline constexpr int64_t kUcxEndNanos = 500'000'000;

// ---- Transfer engine ----

// Large writes are cut for several rails into shards of at least this size, where options say nothing else.
inline constexpr uint64_t kMinShardBytes = 64 << 10;
// Frames to one peer that UCX holds at a time, on each rail.
inline constexpr int kTransferFramesInFlight = 16;
// Payload of a frame between processes of one host: several fit into a ring.
inline constexpr size_t kTransferRingFrameBytes = 30 << 10;
// Writes within a host that are larger are read by the target from the source's memory, so many ranges a frame.
inline constexpr uint64_t kTransferPullBytes = 8 << 10;
inline constexpr size_t kTransferPullExtents = 512;
// How long a closing engine lets its last frames go.
inline constexpr int64_t kTransferLingerNanos = 200'000'000;

// ---- MPI ----
inline constexpr size_t kMpiEagerBytes = 16 << 10;
// Control messages that can arrive between two looks without waiting inside MPI.
inline constexpr int kMpiPostedReceives = 16;
// A body travels in pieces of this size, so that reductions overlap with the transfer.
inline constexpr size_t kMpiPieceBytes = 1 << 20;
// How long a closing communicator lets MPI flush what it has accepted.
inline constexpr int64_t kMpiFlushNanos = 5'000'000'000;

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

// ---- Choice of algorithms (equal on all ranks, or ranks choose differently) ----

// Pipelined algorithms cut what they pass on into pieces of at least this size, and into at most so many.
inline constexpr size_t kPieceBytes = 256 << 10;
// Other sizes of pieces that the tuner prices.
inline constexpr size_t kOtherPieceBytes[] = {64 << 10, 1 << 20};
// Messages that the tuner prices one by one, so that a choice among a thousand ranks takes milliseconds.
inline constexpr size_t kTunerReplayed = 32 << 10;
// Where nothing was measured or declared. In seconds: shared memory, and a network of some ten gigabits.
inline constexpr double kLocalLatency = 0.5e-6;
inline constexpr double kLocalSecondsPerByte = 1.0 / 10e9;
inline constexpr double kLocalGap = 0.1e-6;
inline constexpr double kRemoteLatency = 20e-6;
inline constexpr double kRemoteSecondsPerByte = 1.0 / 1.25e9;
inline constexpr double kRemoteGap = 2e-6;
// An algorithm that takes at most so many times as long as the fastest may have won another time.
inline constexpr double kMeasuredNoise = 1.03;

// ---- Measuring links when a communicator is made ----

// Pairs of hosts that measure, side by side.
inline constexpr int kMeasuredPairs = 4;
inline constexpr int kMeasuredRoundTrips = 12;
// Small messages back to back, whose rate is the gap.
inline constexpr uint64_t kMeasuredBurst = 32;
// Large ones grow fourfold from the first size to the most, until one takes a fourth of this many seconds.
inline constexpr size_t kMeasuredFirstBytes = 64 << 10;
inline constexpr size_t kMeasuredMostBytes = 4 << 20;
inline constexpr double kMeasuredSeconds = 0.05;
inline constexpr absl::Duration kMeasuringTimeout = absl::Seconds(2);
inline constexpr size_t kMaxPieces = 8;
// Hierarchical all-reduces do not cut a buffer into rails of fewer elements than this.
inline constexpr size_t kRailElements = 256;

// ---- Datatypes ----

// Nested strides of a datatype in canonical form, beside its runs, and blocks of one.
inline constexpr size_t kDatatypeLevels = 8;
inline constexpr size_t kDatatypeBlocks = 1 << 20;
// Runs from this size on are left to memcpy.
inline constexpr size_t kDatatypeLongRun = 512;
// Runs between the one that is copied and the one whose cache line is asked for.
inline constexpr size_t kDatatypePrefetchRuns = 32;

// ---- Codecs (equal on all ranks, part of the wire formats) ----

// Elements that share a scale. With its four bytes an int8 block takes 0.254 of the f32 bytes.
inline constexpr size_t kCodecBlock = 256;

// ---- Prices ----

// Messages of a pattern that are priced one by one; beyond, repeated rounds are priced by their slowest member.
inline constexpr size_t kReplayedMessages = 8 << 20;

}  // namespace cohort::comm::policy
