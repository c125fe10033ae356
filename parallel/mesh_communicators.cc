#include "parallel/mesh_communicators.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "comm/check.h"
#include "runtime/collectives/over_device.h"

namespace cohort::parallel {
namespace {

absl::StatusOr<std::shared_ptr<comm::Communicator>> Along(const Mesh& mesh, absl::Span<const Axis> axes,
                                                          comm::Communicator& world) {
  if (mesh.Size(axes) == 1) return comm::Communicator::Single();
  const int rank = world.rank();
  COHORT_ASSIGN_OR_RETURN(std::unique_ptr<comm::Communicator> group,
                          world.Split(mesh.Group(axes, rank).front(), mesh.Coordinate(axes, rank)));
  return group;
}

// In one order on all ranks: each may make a communicator of the devices'.
absl::Status ReachDevice(MeshCommunicators& groups, runtime::Device& device) {
  MeshCommunicators::OverDevice& over = groups.over_device;
  over.device = &device;
  over.pipeline = runtime::ThroughHost(device, groups.pipeline);
  COHORT_ASSIGN_OR_RETURN(over.context, runtime::OverDevice(device, groups.context));
  COHORT_ASSIGN_OR_RETURN(over.tensor, runtime::OverDevice(device, groups.tensor));
  COHORT_ASSIGN_OR_RETURN(over.expert, runtime::OverDevice(device, groups.expert));
  COHORT_ASSIGN_OR_RETURN(over.sequences, runtime::OverDevice(device, groups.sequences));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<MeshCommunicators> Connect(const Mesh& mesh, std::shared_ptr<comm::Communicator> world,
                                          runtime::Device& device) {
  MeshCommunicators groups;
  groups.mesh = mesh;
  const auto along = [&](absl::Span<const Axis> axes, std::shared_ptr<comm::Communicator>& group) {
    auto made = Along(mesh, axes, *world);
    if (made.ok()) group = *std::move(made);
    return made.status();
  };
  COHORT_RETURN_IF_ERROR(along({Axis::kPipeline}, groups.pipeline));
  COHORT_RETURN_IF_ERROR(along({Axis::kContext}, groups.context));
  COHORT_RETURN_IF_ERROR(along({Axis::kTensor}, groups.tensor));
  COHORT_RETURN_IF_ERROR(along({Axis::kExpert}, groups.expert));
  COHORT_RETURN_IF_ERROR(along(kSequenceAxes, groups.sequences));
  COHORT_RETURN_IF_ERROR(along(kStageAxes, groups.stage));
  COHORT_RETURN_IF_ERROR(along(kTensorReplicaAxes, groups.tensor_replicas));
  COHORT_RETURN_IF_ERROR(along({Axis::kExpertData}, groups.expert_data));
  groups.world = std::move(world);
  COHORT_RETURN_IF_ERROR(ReachDevice(groups, device));
  return groups;
}

absl::Status ConnectHybrid(MeshCommunicators& groups) {
  const int context = groups.mesh.Size(Axis::kContext);
  if (context > 1) {  // (a configuration is told so sooner: ArrangementOf)
    return absl::InvalidArgumentError(absl::StrCat(
        "parallel.hybrid_tokens gives every sequence the ranks that it needs, and parallel.context gives it ",
        context, ": set one of them"));
  }
  COHORT_ASSIGN_OR_RETURN(groups.hybrid, Along(groups.mesh, kStageAxes, *groups.world));
  groups.over_device.hybrid = runtime::ThroughHost(*groups.over_device.device, groups.hybrid);
  return absl::OkStatus();
}

absl::StatusOr<Mesh> MakeMesh(MeshShape shape, const comm::Communicator& world) {
  std::vector<int> host_of;
  for (int rank = 0; rank < world.size(); ++rank) host_of.push_back(world.topology().host_of(rank));
  return Mesh::Create(shape, host_of);
}

}  // namespace cohort::parallel
