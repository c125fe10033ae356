// parallel.mesh: auto. Training asks the planner how to spread the model over the ranks that run.
#pragma once

#include "absl/status/statusor.h"
#include "comm/communicator.h"
#include "runtime/config/config.h"
#include "runtime/device/device.h"

namespace cohort::tools {

// Collective. `config` as the user wrote it, `defaults` the same without its mesh and with all defaults. Measures the
// ranks on `device`, and writes the plan that is fastest and fits into the configuration, in place of `auto`; keys that
// are set stay. Rank 0 prints which one, and why. All ranks get the same.
absl::StatusOr<v1::TrainConfig> WithPlannedMesh(v1::TrainConfig config,
                                                const runtime::ResolvedConfig& defaults,
                                                runtime::Device& device, comm::Communicator& world);

}  // namespace cohort::tools
