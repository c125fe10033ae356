// Which mesh a training goes on with after its ranks have changed. Pure.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "cohort/v1/config.pb.h"
#include "parallel/planner/cluster.h"
#include "runtime/model/model_config.h"

namespace cohort::parallel {

struct NextMesh {
  v1::TrainConfig config;  // complete, for `ranks` ranks
  int ranks = 1;           // that train; the others are spare
  std::string why;         // in words
};

// `config` is that of the mesh before, complete. `cluster` has all ranks that there are now, those first that should
// train. What is trained stays as it is: the global batch, the type, the sharding, and in deterministic mode the axes and
// sizes on which bits depend. Axes (pipeline, context, tensor, expert) stay where they can, unless others are predicted to
// be faster by more than the planner's assumed error. Of the numbers of ranks for which there is a mesh whose predicted
// step takes at most elastic_policy::kSpareGain longer than the fastest of all, the largest (with elastic.lost_hosts the
// largest of all). Where there are very many ranks, of a few numbers of them (elastic_policy). Where the planner has no
// price for what the configuration asks for, the axes stay and as many ranks train as they divide.
// NOT_FOUND: no number of ranks can train it, with the planner's reasons.
absl::StatusOr<NextMesh> PlanNextMesh(const v1::TrainConfig& config, const runtime::ModelConfig& model,
                                      const planner::Cluster& cluster);

}  // namespace cohort::parallel
