// The coordinator that an elastic job starts by itself: a process beside its ranks, which outlives them.
#pragma once

#include <sys/types.h>

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace cohort::tools {

// Starts one with its state and log in `folder`, in a session of its own: neither the launcher nor the death of this process
// ends it. It writes its address into the file; its pid and host are written beside that.
absl::Status StartCoordinator(const std::string& folder, const std::string& address_file, bool several_hosts);

// Its pid where it is on this host; 0 elsewhere.
pid_t CoordinatorHere(const std::string& address_file);

// Where it was on this host and has died: starts it again with its state. Any process of the host may, and one does.
absl::Status RestartCoordinator(const std::string& folder, const std::string& address_file,
                                bool several_hosts);

// HOST:PORT as it is; of a folder, the output of an elastic training on a file system that this host sees, the address of the
// coordinator that was started there last.
absl::StatusOr<std::string> CoordinatorAddress(const std::string& address_or_run);

absl::StatusOr<std::string> WaitForAddress(const std::string& address_file, absl::Time deadline);

}  // namespace cohort::tools
