// The limits and waits of the keeper and its clients, in one place.
#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/time/time.h"

namespace cohort::runtime::elastic::keeper_policy {

// A keeper that no process has been connected to for this long goes, and its segments with it.
inline constexpr absl::Duration kIdleLife = absl::Minutes(10);
// How long a client waits for a keeper to be there, and for an answer. A keeper answers in microseconds; it may be
// stopped.
inline constexpr absl::Duration kStartWait = absl::Seconds(10);
inline constexpr absl::Duration kAnswerWait = absl::Seconds(5);
// Pause between two attempts to reach a keeper.
inline constexpr absl::Duration kRetryPause = absl::Milliseconds(2);
// Memory that the host must have left, beside what segments may still come to use, for another segment to be taken.
inline constexpr int64_t kReserveBytes = int64_t{256} << 20;
// Longer messages are not sent, and end the connection of who sends them. Names are some ten bytes; lists come in
// pieces.
inline constexpr size_t kMessageBytes = 64 << 10;
inline constexpr size_t kNameBytes = 4 << 10;
inline constexpr size_t kListedAtOnce = 8;
// Segments and connections of one keeper.
inline constexpr size_t kMostSegments = 4096;
inline constexpr size_t kMostClients = 1024;

}  // namespace cohort::runtime::elastic::keeper_policy
