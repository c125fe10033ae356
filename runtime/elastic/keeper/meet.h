// Where a keeper listens, and how it is started there.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "runtime/elastic/keeper/keeper.h"

namespace cohort::runtime::elastic {

// The name of the socket, in the abstract namespace: it goes with whoever listens, and a network namespace has its own.
std::string KeeperAddress(const KeeperOptions& options);

// A connected socket. With `start`, and nobody listening, starts a keeper. NOT_FOUND where nobody listens and none is to
// be started; UNAVAILABLE where the deadline passes; what the system says where the command cannot be run.
absl::StatusOr<int> MeetKeeper(const KeeperOptions& options, bool start, absl::Time deadline);

}  // namespace cohort::runtime::elastic
