// Where a configuration says what turned out to be wrong.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"

namespace cohort::runtime {

// An error of ResolveConfig whose message begins with a key ("optimizer.lr is -1; ...") gets the place of that key put
// before it: "file:line: ", or the override that set it. Other statuses, and keys that nobody wrote, stay as they are.
absl::Status WithPlace(const absl::Status& status, const std::string& file,
                       const std::vector<std::string>& overrides);

}  // namespace cohort::runtime
