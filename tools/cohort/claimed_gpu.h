// A GPU for a rank of an elastic training, which may come while others have theirs.
#pragma once

#include <functional>
#include <string>

#include "absl/status/statusor.h"
#include "runtime/device/device.h"

namespace cohort::tools {

// Of `count` GPUs, looked at from `first` on, the first that no other process of the host has claimed; claimed until this
// process ends. Where all are, `first` is shared. hardware: what a GPU is of the machine, the same for all processes.
int ClaimPlace(int count, int first, const std::function<std::string(int)>& hardware);

// cpu, or cuda: a GPU of this host that no other process has claimed. An error says why there is none, and what to do.
absl::StatusOr<runtime::Device*> ClaimDevice(const std::string& name, int first);

}  // namespace cohort::tools
