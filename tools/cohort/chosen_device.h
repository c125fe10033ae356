// Which device a command computes on: what --device and the configuration's `device` say.
#pragma once

#include <string>

#include "CLI/CLI.hpp"
#include "absl/status/statusor.h"
#include "runtime/device/device.h"

namespace cohort::tools {

// Adds --device, with what `name` holds as its default.
void AddDeviceFlag(CLI::App& app, std::string& name);

// cpu or cuda, for a job of so many ranks. An error says why it cannot be, and what to do.
absl::StatusOr<runtime::Device*> ChosenDevice(const std::string& name, int ranks);

}  // namespace cohort::tools
