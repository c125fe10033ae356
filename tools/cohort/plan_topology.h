// A cluster described in a file.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "comm/pricing.h"

namespace cohort::tools {

// Reads a YAML file as examples/cluster.yaml explains it. Errors name the file and the line.
absl::StatusOr<comm::Machine> ReadTopology(const std::string& path);

}  // namespace cohort::tools
