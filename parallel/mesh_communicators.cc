#include "parallel/mesh_communicators.h"

#include <utility>
#include <vector>

#include "comm/check.h"

namespace cohort::parallel {
namespace {

absl::StatusOr<std::shared_ptr<comm::Communicator>> Along(const Mesh& mesh, Axis axis,
                                                          comm::Communicator& world) {
  if (mesh.Size(axis) == 1) return comm::Communicator::Single();
  const int rank = world.rank();
  COHORT_ASSIGN_OR_RETURN(std::unique_ptr<comm::Communicator> group,
                          world.Split(mesh.Group(axis, rank).front(), mesh.Coordinate(axis, rank)));
  return group;
}

}  // namespace

absl::StatusOr<MeshCommunicators> Connect(const Mesh& mesh, std::shared_ptr<comm::Communicator> world) {
  MeshCommunicators groups;
  COHORT_ASSIGN_OR_RETURN(groups.data, Along(mesh, Axis::kData, *world));
  COHORT_ASSIGN_OR_RETURN(groups.expert_data, Along(mesh, Axis::kExpertData, *world));
  COHORT_ASSIGN_OR_RETURN(groups.expert, Along(mesh, Axis::kExpert, *world));
  groups.world = std::move(world);
  return groups;
}

absl::StatusOr<Mesh> MakeMesh(MeshShape shape, const comm::Communicator& world) {
  std::vector<int> host_of;
  for (int rank = 0; rank < world.size(); ++rank) host_of.push_back(world.topology().host_of(rank));
  return Mesh::Create(shape, host_of);
}

}  // namespace cohort::parallel
