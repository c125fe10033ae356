// Limits and waits of the serving room: its one home for such numbers.
#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/time/time.h"
#include "comm/policy.h"

namespace cohort::serving::policy {

// ---- what one request may ask for (proto/cohort/v1/inference.proto states the same numbers)
inline constexpr int kMaxCompletions = 64;
inline constexpr int kMaxLogprobs = 20;
inline constexpr int kMaxStopStrings = 16;
inline constexpr size_t kMaxStopBytes = 1024;
inline constexpr int kMaxStopIds = 1024;
inline constexpr int kMaxLogitBiases = 4096;
inline constexpr size_t kMaxBytesPerToken = 256;  // longer tokens exist in no vocabulary worth the name
inline constexpr size_t kMaxRequestIdBytes = 256;
inline constexpr double kMaxPenalty = 2.0;  // presence and frequency: [-2, 2]

// ---- the engine's defaults
inline constexpr int32_t kPageSize = 16;              // tokens of one page of the cache
inline constexpr int64_t kCacheBytes = 1 << 30;       // of one rank, for keys and values
inline constexpr int64_t kMaxTokensPerStep = 512;     // of one rank: decodes and prefill chunks together
inline constexpr int64_t kMaxSequencesPerRank = 64;   // that hold pages at once
inline constexpr int64_t kMaxQueuedRequests = 256;    // not yet begun
inline constexpr int64_t kMaxQueuedTokens = 4 << 20;  // prompt tokens of these, each completion counted

// ---- waits
// An idle engine wakes this often: deadlines are looked at, and the other ranks get a heartbeat so that their
// wait for the next step does not run into the communicator's own timeout (CommunicatorOptions::timeout).
inline constexpr absl::Duration kHeartbeat = absl::Seconds(2);
// The server looks this often at signals and at whether its engine still runs.
inline constexpr absl::Duration kSupervisionInterval = absl::Milliseconds(100);
inline constexpr absl::Duration kDrainGrace = absl::Seconds(30);
// After the grace period, for the step that still runs then: longer than ranks wait for a lost one.
inline const absl::Duration kAbortTimeout = comm::policy::kTimeout + absl::Seconds(30);
// After the last answer, for the last messages to reach their clients.
inline constexpr absl::Duration kShutdownGrace = absl::Seconds(5);
inline constexpr absl::Duration kConnectTimeout = absl::Seconds(10);

// ---- the wire
inline constexpr int kMaxMessageBytes = 256 << 20;
// Clients may ping no more often than this; more is answered with GOAWAY.
inline constexpr absl::Duration kMinPingInterval = absl::Seconds(10);
// Steps and answers between ranks of up to this size are one message.
inline constexpr size_t kFrameBytes = 8192;
// The largest step or answer that ranks exchange; a longer one is a corrupt length.
inline constexpr uint64_t kMaxStepBytes = uint64_t{1} << 32;

// ---- text
// The last tokens of a prompt among which one with text of its own is looked for, for the output to go on from.
inline constexpr size_t kPromptTokensDecoded = 16;

}  // namespace cohort::serving::policy
