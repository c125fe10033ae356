// Which device a command computes on: what --device and the configuration's `device` say.
#pragma once

#include <string>

#include "CLI/CLI.hpp"
#include "absl/status/statusor.h"
#include "comm/communicator.h"
#include "runtime/device/device.h"

namespace cohort::tools {

// Adds --device, with what `name` holds as its default.
void AddDeviceFlag(CLI::App& app, std::string& name);

// cpu or cuda, of a command that is one process. An error says why it cannot be, and what to do.
absl::StatusOr<runtime::Device*> ChosenDevice(const std::string& name);

// The same for a rank of a job: of the GPUs that it may use the one of its number among the ranks of its host, over again
// where there are fewer.
absl::StatusOr<runtime::Device*> DeviceOfRank(const std::string& name, const comm::Communicator& world);

}  // namespace cohort::tools
