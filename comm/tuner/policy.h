// What the tuner assumes, measures and takes for equal.
#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/time/time.h"

namespace cohort::comm::policy {

// ---- Choice of algorithms (equal on all ranks, or ranks choose differently) ----

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
// one with fewer messages is taken. Measured with operations of 8 B to 4 KB on four hosts that share two cores; where
// bytes take most of the time, that much less (512 KB there: fewer messages, but in more rounds, took a tenth longer).
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

}  // namespace cohort::comm::policy
