// Which ranks hold the same parameters: one table, a row a placement. What is then done with a replica group (sums of
// gradients, shards) is the sharding table's, the same for all.
#pragma once

#include <memory>

#include "absl/types/span.h"
#include "parallel/mesh_communicators.h"
#include "runtime/model/parameter.h"

namespace cohort::parallel {

struct PlacementRow {
  runtime::Placement placement;
  const char* name;
  // Ranks that hold the same parameters of this placement, by their place among them: along which axes.
  absl::Span<const Axis> axes;
  std::shared_ptr<comm::Communicator> MeshCommunicators::*replicas;
  // Ranks of the stage from one replica to the next, as the mesh orders them.
  int (*stride)(const MeshShape& shape);
};

absl::Span<const PlacementRow> Placements();

}  // namespace cohort::parallel
