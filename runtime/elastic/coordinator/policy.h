// Limits and waits of the coordinator and its clients, in one place (proto/cohort/v1/cluster.proto states the limits).
#pragma once

#include <cstddef>

#include "absl/time/time.h"

namespace cohort::cluster::policy {

// ---- leases
inline constexpr absl::Duration kLease = absl::Seconds(2);
inline constexpr absl::Duration kShortestLease = absl::Milliseconds(100);
inline constexpr absl::Duration kLongestLease = absl::Hours(1);
// Members renew so many times in a lease; the coordinator looks at the leases so many times in one.
inline constexpr int kRenewalsPerLease = 4;
inline constexpr int kTicksPerLease = 8;
// Unusual steps are told at once, as far as all members together renew at most so often in a second; members are judged
// so long after the first that tells, when the others have told as well.
inline constexpr double kRenewalsPerSecond = 10'000;
inline constexpr absl::Duration kSoonestRenewal = absl::Milliseconds(50);
inline constexpr absl::Duration kJudgeSoon = absl::Milliseconds(10);
// Between two looks the coordinator should be away for at most this share of a lease: what is longer (it was stopped,
// or the clock was set) is added to every lease.
inline constexpr double kLongestTick = 0.5;

// ---- what one request may hold
inline constexpr size_t kMaxNameBytes = 256;
inline constexpr size_t kMaxKeyBytes = 1 << 10;
inline constexpr size_t kMaxValueBytes = 1 << 20;  // a post, a value of the rendezvous, an arrangement
inline constexpr size_t kMaxAnswerBytes = 64 << 20;
inline constexpr size_t kMaxWordsBytes = 64 << 10;
inline constexpr size_t kMaxMembers = 1 << 17;
inline constexpr size_t kMaxRecentSteps = 64;  // of a report
inline constexpr size_t kMaxPosts = 1 << 17;
inline constexpr int kMaxMessageBytes = 256 << 20;
// Names of an epoch's members in a message; and bytes of them in the details of an error, which gRPC sends as a header.
inline constexpr int kNamesShown = 16;
inline constexpr size_t kMaxDetailsBytes = 4 << 10;
inline constexpr absl::Duration kLongestWait = absl::Seconds(10);

// ---- ties
// A half that goes on by the coordinator's word is bound to its leases for at most so long.
inline constexpr absl::Duration kTieOpen = absl::Minutes(1);
inline constexpr size_t kTiesKept = 8;
// Of a member: asking once; between two looks at what has become of it; until the half's leader edits again, when the
// others are ready; in all, until it is known whether the other half lives; for its lease to come back.
inline constexpr absl::Duration kTiePatience = absl::Seconds(1);
inline constexpr absl::Duration kTieLook = absl::Milliseconds(100);
inline constexpr absl::Duration kTieLeaderPause = absl::Milliseconds(500);
inline constexpr absl::Duration kTieWait = absl::Seconds(30);
inline constexpr absl::Duration kHoldPatience = absl::Minutes(5);

// ---- what is kept
inline constexpr size_t kEventsKept = 4096;
inline constexpr size_t kLaunchesKept = 8;
inline constexpr size_t kGoneKept = 4096;  // members that have left or expired and are in no epoch

// ---- the journal
// It is replaced by the state once so many bytes were appended, and more than the state itself has.
inline constexpr size_t kCompactBytes = 4 << 20;
inline constexpr absl::Duration kEtcdTimeout = absl::Seconds(5);
// etcd takes 1.5 MiB in a request by default, and answers of its gateway have 4 MiB at most: texts of up to the first
// size are values of their own, of which so many are read at a time; longer ones are cut into parts of the second.
inline constexpr size_t kEtcdInlineBytes = 32 << 10;
inline constexpr int kEtcdInlinePage = 64;
inline constexpr size_t kEtcdPartBytes = 512 << 10;
inline constexpr int kEtcdPartPage = 4;

// ---- the service
// After SIGTERM, for the last answers to reach their clients.
inline constexpr absl::Duration kShutdownGrace = absl::Milliseconds(500);
inline constexpr absl::Duration kMinPingInterval = absl::Seconds(1);
inline constexpr absl::Duration kSupervisionInterval = absl::Milliseconds(50);

// ---- clients
// One try of a call: a coordinator that hangs longer is taken to be away.
inline constexpr absl::Duration kTryTimeout = absl::Seconds(2);
// That one with less time than this was in vain says nothing of the coordinator.
inline constexpr absl::Duration kTellingTimeout = absl::Milliseconds(500);
inline constexpr absl::Duration kFirstPause = absl::Milliseconds(20);
inline constexpr absl::Duration kLongestPause = absl::Milliseconds(500);
// What Tell keeps for a coordinator that is away.
inline constexpr size_t kToldKept = 4096;
inline constexpr size_t kEpochsKept = 64;
// A newcomer's patience with a coordinator that is away, and of Put.
inline constexpr absl::Duration kPatience = absl::Seconds(30);
// Answered() waits so long at the coordinator, which is cheaper than asking anew.
inline constexpr absl::Duration kAnswerWait = absl::Milliseconds(100);

}  // namespace cohort::cluster::policy
