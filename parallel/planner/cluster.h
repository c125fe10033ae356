// The machine that is planned for: where ranks are, what messages cost, and what a rank can do.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "comm/communicator.h"
#include "comm/pricing.h"
#include "parallel/planner/layer_times.h"
#include "parallel/planner/mesh_plan.h"
#include "parallel/planner/model_cost.h"
#include "parallel/planner/policy.h"
#include "runtime/device/device.h"

namespace cohort::parallel::planner {

struct Cluster {
  comm::Machine machine;
  double flops = 0;    // a second, of one rank's matrix products with a core for itself; above 0
  int64_t memory = 0;  // bytes of a rank; 0: no limit is known
  // The part of a core that a rank has where all compute at once: less than one where ranks share cores. While some of
  // them wait, others have more. Above 0.
  double cores = 1;
  // What it costs besides its price that ranks meet in a message: the message itself, as small ones are priced between
  // ranks that have a core each; and where they computed before, how far they have drifted apart since they met last,
  // `drift` after `drift_after` seconds of computing (at their part of the cores), less after less, no more after more:
  // they take turns on the cores.
  double meeting = 0, drift = 0, drift_after = 0;  // seconds
  LayerTimes layers = {};                          // measured; empty: FLOPs over `flops`
  double update_seconds = 0;                       // of the optimizer for an element; 0: as memory moves
  // The part of computing time behind which gathers and reductions can hide.
  double overlap = policy::kOverlap;
  // How much longer than priced messages take (calibration.h).
  double communication_scale = 1;

  int ranks() const { return machine.hosts->size(); }
  // Seconds of a meeting after so many seconds of computing.
  double Meeting(double computing) const {
    return meeting + (drift > 0 ? drift * std::min(1.0, computing / drift_after) : 0);
  }
  // The same with its first ranks only. INVALID_ARGUMENT where there are not as many.
  absl::StatusOr<Cluster> First(int ranks) const;
};

// Described: a topology file (comm/topology_file.h), which must say where ranks are. `source` is named in errors.
// `flops` and `memory` as above; ranks have a core each.
absl::StatusOr<Cluster> DescribedCluster(absl::string_view topology, absl::string_view source, double flops,
                                         int64_t memory);

// Collective. The ranks that are running, with the prices their communicator has (measured where it was made to). What
// layers take is measured by one rank while the others wait; what ranks take from each other, and what meeting costs, by
// all at once: the slowest counts. Memory is a rank's share of what its host has free. The same on all ranks. Takes a
// second or two.
absl::StatusOr<Cluster> RunningCluster(comm::Communicator& world, runtime::Device& device, DataType compute,
                                       const ModelCost& model, const Work& work);

}  // namespace cohort::parallel::planner
