// The keeper's own process.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"

namespace cohort::runtime::elastic {

// What the process that Keeper::Connect starts does for its life: `arguments` are those that Connect appended to its
// command. Returns in the first process at once (the keeper is a child of it, so that nobody has to wait for it), and
// in the keeper when it was told to go or nobody needed it any more.
absl::Status ServeKeeper(const std::vector<std::string>& arguments);

}  // namespace cohort::runtime::elastic
