#include "parallel/placements.h"

namespace cohort::parallel {
namespace {

constexpr PlacementRow kPlacements[] = {
    {runtime::Placement::kReplicated, "data", kStageAxes, &MeshCommunicators::stage,
     [](const MeshShape&) { return 1; }},
    {runtime::Placement::kExpert, "expert", kExpertReplicaAxes, &MeshCommunicators::expert_data,
     [](const MeshShape& shape) { return shape.expert; }},
    {runtime::Placement::kTensor, "tensor", kTensorReplicaAxes, &MeshCommunicators::tensor_replicas,
     [](const MeshShape& shape) { return shape.tensor; }},
};

}  // namespace

absl::Span<const PlacementRow> Placements() { return kPlacements; }

}  // namespace cohort::parallel
