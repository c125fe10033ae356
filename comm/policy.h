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
inline constexpr int kSpinPollsShared = 4;
// For so long it yields before it sleeps on the doorbell, where each rank has a core of its own (waking a core that
// sleeps takes longer than most waits), and where not.
inline constexpr int64_t kYieldNanos = 1'000'000;
inline constexpr int64_t kYieldNanosShared = 200'000;
// Where messages come over a network, each of which takes longer, whoever has the cores.
inline constexpr int64_t kNetworkYieldNanos = 2'000'000;
// The transfer engine counts its yields instead.
inline constexpr int kYieldPolls = 200;
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

// ---- Memory ----

// Copies are made in blocks of this size.
inline constexpr size_t kCopyBlockBytes = 128 << 10;
// Last copies into the output of calls whose buffers take this much are written past the caches.
inline constexpr size_t kPastCachesBytes = 16 << 20;
// Scratch begins where the widest vectors and cache lines do.
inline constexpr size_t kScratchAlignment = 64;
// Scratch that a group keeps for calls that come again, of all kinds of calls together.
inline constexpr size_t kScratchKept = 64 << 20;

// ---- Peers that are silent ----

// While operations wait, silence of a peer for longer than this (COHORT_PEER_SILENCE_MS) is loss: its host or link is
// down, or its process is stopped.
inline constexpr int64_t kPeerSilenceNanos = 700'000'000;
// One look at the peers counts for at most this much silence: this rank may have been stopped itself. So often are
// processes of the own host looked at.
inline constexpr int64_t kSilenceLookNanos = 50'000'000;

// ---- Shared memory ----

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
// A pull moves this much at a time into place, or this much into a buffer that it reduces from (half an L2).
inline constexpr size_t kPullBytes = 1 << 20;
inline constexpr size_t kPullReduceBytes = 128 << 10;

// ---- UCX ----

// Messages up to this size travel whole; a larger one is announced with its first bytes, and then comes in
// pieces of this size: with its header, a piece fits the segments that UCX is set to (64 KiB).
inline constexpr size_t kUcxPieceBytes = 60 << 10;
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
// How long a closing transport waits for its peers to say that they have everything, and for its endpoints to end. Peers
// on a busy machine may not come to it for long, and what they have not read is lost with the connection.
inline constexpr int64_t kUcxLingerNanos = 3'000'000'000;
inline constexpr int64_t kUcxEndNanos = 500'000'000;

// ---- Transfer engine ----

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
inline constexpr uint64_t kTransferMappedBytes = 64 << 10;
// How long RemovePeer waits for a peer that is stopped in the middle of such a write.
inline constexpr int64_t kTransferRevokeNanos = 1'000'000'000;
// Looks at the rings that a waiting thread takes without letting go of the lock, and such turns until it looks at
// everything else.
inline constexpr int kTransferLooks = 16;
inline constexpr int kTransferTurns = 16;
// Numbers of immediates that are kept while none is counted or expected: making them anew takes longer than a count.
inline constexpr size_t kTransferCountersKept = 256;
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
// Ranks tell each other their counts before an all-to-all-v where all counts together are at most so many bytes, and
// where that pays for messages of this size.
inline constexpr size_t kMostCountsBytes = 1 << 20;
inline constexpr size_t kSmallMessageBytes = 256;
// Telling each other the counts must promise so much: two hosts of four ranks, promised 1.6, lost (measured at 1
// Gbit/s, 2 KB a rank: 320 us with the exchange, 276 pairwise), as the exchange is one more operation for all
// processors.
inline constexpr double kCountsFirstGain = 2;
// Messages that the tuner prices one by one, so that a choice among a thousand ranks takes milliseconds.
inline constexpr size_t kTunerReplayed = 32 << 10;
// Where nothing was measured or declared. In seconds: shared memory, and a network of some ten gigabits.
inline constexpr double kLocalLatency = 0.5e-6;
inline constexpr double kLocalSecondsPerByte = 1.0 / 10e9;
inline constexpr double kLocalGap = 0.1e-6;
inline constexpr double kRemoteLatency = 20e-6;
inline constexpr double kRemoteSecondsPerByte = 1.0 / 1.25e9;
inline constexpr double kRemoteGap = 2e-6;
// How much longer the bytes of rounds between hosts take than their link needs, because ranks drift apart, and in turns
// half as much: measured with halving-doubling (0.04 to 0.2) and pairwise exchanges (0 to 0.13) of 512 KB to 16 MB on four
// hosts at 1 Gbit/s, with Reno.
inline constexpr double kDrift = 0.15;
// An algorithm that takes at most so many times as long as the fastest may have won another time.
inline constexpr double kMeasuredNoise = 1.03;
// Algorithms whose prices differ by at most this part of what the cheapest one's messages take without their bytes: the
// one with fewer messages is taken. Measured with operations of 8 B to 4 KB on four hosts that share two cores.
inline constexpr double kAlike = 0.25;

// ---- Measuring links when a communicator is made ----

// Hosts that measure, in teams of so many, at the same time.
inline constexpr int kMeasuredHosts = 8;
inline constexpr int kMeasuredTeam = 4;
// Exchanges of small messages whose mean is taken, and such means.
inline constexpr uint64_t kMeasuredExchanges = 20;
inline constexpr uint64_t kMeasuredMeans = 9;
// They are of one message and of so many from each rank.
inline constexpr uint64_t kMeasuredBurst = 3;
// The most of an exchange that counts as gap; the rest is latency.
inline constexpr double kMostGap = 0.9;
// Large ones grow fourfold from the first size to the most, until one takes a fourth of this many seconds.
inline constexpr size_t kMeasuredFirstBytes = 64 << 10;
inline constexpr size_t kMeasuredMostBytes = 4 << 20;
inline constexpr double kMeasuredSeconds = 0.05;
inline constexpr absl::Duration kMeasuringTimeout = absl::Seconds(2);
inline constexpr size_t kMaxPieces = 8;
// Of a pairwise exchange in pieces, those that may be under way beside those that are waited for.
inline constexpr size_t kPiecesUnderWay = 2;
// Hierarchical all-reduces do not cut a buffer into lanes of fewer elements than this.
inline constexpr size_t kLaneElements = 256;

// ---- Datatypes ----

// Nested strides of a datatype in canonical form, beside its runs, and blocks of one.
inline constexpr size_t kDatatypeLevels = 8;
inline constexpr size_t kDatatypeBlocks = 1 << 20;
// Runs from this size on are left to memcpy.
inline constexpr size_t kDatatypeLongRun = 512;
// Layouts whose cache lines take at most so many bytes are near: they are packed from the first cache. Those of more
// than the second number are far: their lines are asked for so many runs ahead.
inline constexpr size_t kDatatypeNearBytes = 24 << 10;
inline constexpr size_t kDatatypeFarBytes = 2 << 20;
inline constexpr size_t kDatatypePrefetchRuns = 64;
// What packing and copying in place cost is measured at these lengths of runs, on so many runs at most, in so many
// bytes, as the shortest of so many times.
inline constexpr size_t kDatatypeMeasuredRuns[] = {8, 64, 256, 1 << 10, 4 << 10, 16 << 10, 64 << 10};
inline constexpr size_t kDatatypeMeasuredMostRuns = 1024;
inline constexpr size_t kDatatypeMeasuredBytes = 512 << 10;
inline constexpr int kDatatypeMeasuredTurns = 5;
// Memory for packed messages that a group keeps for the next ones: so many pieces, and so many bytes of each at most.
inline constexpr size_t kStagingPieces = 8;
inline constexpr size_t kStagingBytes = 16 << 20;

// ---- Codecs (equal on all ranks, part of the wire formats) ----

// Elements that share a scale. With its four bytes an int8 block takes 0.254 of the f32 bytes.
inline constexpr size_t kCodecBlock = 256;
// The same of codecs by the smallest and the largest value (the bucket of QSDP, Markov et al., 2023).
// Multiples of the other: parts that are encoded apart begin at multiples of it whatever the codec.
inline constexpr size_t kCodecBucket = 1024;
static_assert(kCodecBucket % kCodecBlock == 0);

// ---- Prices ----

// Messages between hosts up to this size leave whole; larger ones come in pieces as the receiver is ready (the UCX
// transport's).
inline constexpr size_t kWholeBytes = kUcxPieceBytes;

// Messages of a pattern that are priced one by one; beyond, repeated rounds are priced by their slowest member.
inline constexpr size_t kReplayedMessages = 8 << 20;
// An eighth of the former, but at most so many, are priced in the order of time, of at most so many ranks.
inline constexpr size_t kMostOrdered = 128 << 10;
inline constexpr int kMostRanksOrdered = 1024;

}  // namespace cohort::comm::policy
