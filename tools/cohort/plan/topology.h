// A machine described in a file.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "comm/pricing.h"

namespace cohort::tools {

// Reads a file as comm/topology_file.h explains it, which must say where the ranks are. Errors name the file and the
// line.
absl::StatusOr<comm::Machine> ReadMachine(const std::string& path);

}  // namespace cohort::tools
