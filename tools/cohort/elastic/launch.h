// What the launcher says of the processes that it has started together: Open MPI, PMI, Slurm.
#pragma once

#include <string>

#include "absl/status/statusor.h"

namespace cohort::tools {

struct Launch {
  std::string id;  // these processes have it in common, and no other launch; of a process alone, its own
  int rank = 0, size = 1;
  bool several_hosts = false;
};

// From the environment. FAILED_PRECONDITION where there are several processes without a common name.
absl::StatusOr<Launch> ThisLaunch();

}  // namespace cohort::tools
