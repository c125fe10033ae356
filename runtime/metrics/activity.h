// What this process is doing, where another process can read it: for who shows it, and for tests that kill it in the
// middle of something.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace cohort::runtime {

// From here on every TraceScope (chrome_trace.h) of the calling thread writes its name into a small file that is mapped,
// and on its end that of the scope around it. FAILED_PRECONDITION where that was asked for before.
absl::Status PublishActivity(const std::string& path);

// The same without a file, for CurrentActivity alone. Nothing happens where the process publishes already.
void FollowActivity();

// What the process that publishes there does; empty: nothing that has a name.
absl::StatusOr<std::string> ReadActivity(const std::string& path);

// What the thread of this process that is followed does; empty: nothing that has a name, or none is. Any thread may ask.
std::string CurrentActivity();

// TraceScope's: the name before, to be given back.
const char* EnterActivity(const char* name);

}  // namespace cohort::runtime
