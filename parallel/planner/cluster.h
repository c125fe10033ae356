// The machine that is planned for: where ranks are, what messages cost, and what a rank can do.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "comm/communicator.h"
#include "comm/pricing.h"
#include "parallel/planner/policy.h"
#include "runtime/device/device.h"

namespace cohort::parallel::planner {

struct Cluster {
  comm::Machine machine;
  double flops = 0;    // a second, of one rank's matrix products; above 0
  int64_t memory = 0;  // bytes of a rank; 0: no limit is known
  // The part of computing time behind which gathers and reductions can hide.
  double overlap = policy::kOverlap;
  // How much longer than priced messages take (calibration.h).
  double communication_scale = 1;

  int ranks() const { return machine.hosts->size(); }
  // The same with its first ranks only. INVALID_ARGUMENT where there are not as many.
  absl::StatusOr<Cluster> First(int ranks) const;
};

// Described: a topology file (comm/topology_file.h), which must say where ranks are. `source` is named in errors.
// `flops` and `memory` as above.
absl::StatusOr<Cluster> DescribedCluster(absl::string_view topology, absl::string_view source, double flops,
                                         int64_t memory);

// Collective. The ranks that are running, with the prices their communicator has (measured where it was made to): the
// rate of matrix products is measured by all ranks at once, as they compute at once, and the slowest counts; memory is
// a rank's share of what its host has free. The same on all ranks.
absl::StatusOr<Cluster> RunningCluster(comm::Communicator& world, runtime::Device& device, DataType compute);

}  // namespace cohort::parallel::planner
