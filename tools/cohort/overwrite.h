// What commands that make something say and do where it is there already.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "tools/cohort/command.h"

namespace cohort::tools {

// --overwrite; `what` it replaces, as "the folder".
void AddOverwriteFlag(CLI::App& app, bool& overwrite, const std::string& what);

// ALREADY_EXISTS with the flags that help; any other status as it is.
absl::Status WithOverwriteHint(const absl::Status& status);

}  // namespace cohort::tools
