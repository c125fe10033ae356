// A communicator for each axis of a mesh.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "comm/communicator.h"
#include "parallel/mesh.h"

namespace cohort::parallel {

// This rank's groups. Ranks in a group are numbered by their coordinate along the axis. Each axis
// has a group of its own also where two axes hold the same ranks, so that what one waits for
// never queues behind the other.
struct MeshCommunicators {
  std::shared_ptr<comm::Communicator> world;
  std::shared_ptr<comm::Communicator> data, expert_data, expert;
};

// Collective over `world`, whose ranks the mesh numbers.
absl::StatusOr<MeshCommunicators> Connect(const Mesh& mesh, std::shared_ptr<comm::Communicator> world);

// The mesh of this shape over the ranks of `world`, by its topology.
absl::StatusOr<Mesh> MakeMesh(MeshShape shape, const comm::Communicator& world);

}  // namespace cohort::parallel
