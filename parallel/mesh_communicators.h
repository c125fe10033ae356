// A communicator for each axis of a mesh.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "comm/communicator.h"
#include "parallel/mesh.h"
#include "runtime/device/device.h"

namespace cohort::parallel {

// This rank's groups. Ranks in a group are numbered by their coordinate along its axes. Each has a communicator of its
// own also where two hold the same ranks, so that what one waits for never queues behind the other.
struct MeshCommunicators {
  Mesh mesh;
  std::shared_ptr<comm::Communicator> world;
  std::shared_ptr<comm::Communicator> pipeline, context, tensor, expert;
  std::shared_ptr<comm::Communicator> sequences;  // along kSequenceAxes
  // Ranks that hold the same parameters: of each placement.
  std::shared_ptr<comm::Communicator> stage;            // Placement::kReplicated: along kStageAxes
  std::shared_ptr<comm::Communicator> tensor_replicas;  // Placement::kTensor: along kTensorReplicaAxes
  std::shared_ptr<comm::Communicator> expert_data;      // Placement::kExpert
  // Along kStageAxes: what hybrid batches exchange. Null until ConnectHybrid.
  std::shared_ptr<comm::Communicator> hybrid;

  // The same groups for what lies in the memory of the ranks' device, which is how tensors move (runtime/collectives):
  // the communicators above where that is the host's. Groups that are split off the others get theirs where they
  // are made. Those of messages alone, or mostly, go through the host.
  struct OverDevice {
    runtime::Device* device = nullptr;
    std::shared_ptr<comm::Communicator> pipeline, context, tensor, expert, sequences, hybrid;
  } over_device;
};

// Collective over `world`, whose ranks the mesh numbers.
absl::StatusOr<MeshCommunicators> Connect(const Mesh& mesh, std::shared_ptr<comm::Communicator> world,
                                          runtime::Device& device = runtime::CpuDevice());

// Collective. INVALID_ARGUMENT where the mesh has a context axis: hybrid batches give each sequence its own.
absl::Status ConnectHybrid(MeshCommunicators& groups);

// The mesh of this shape over the ranks of `world`, by its topology.
absl::StatusOr<Mesh> MakeMesh(MeshShape shape, const comm::Communicator& world);

}  // namespace cohort::parallel
