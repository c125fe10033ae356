#include "parallel/elastic/elastic_mesh.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "comm/check.h"
#include "parallel/reshard/training_layout.h"

namespace cohort::parallel {

absl::StatusOr<Arrangement> ArrangementOf(const v1::ElasticMesh& mesh, const runtime::ModelConfig& model) {
  return ArrangementOf(mesh.config().parallel(), model, mesh.members_size());
}

absl::StatusOr<Mesh> MeshOf(const v1::ElasticMesh& mesh, const runtime::ModelConfig& model) {
  COHORT_ASSIGN_OR_RETURN(const Arrangement arrangement, ArrangementOf(mesh, model));
  return Mesh::Create(arrangement.shape, std::vector<int>(mesh.host_of().begin(), mesh.host_of().end()));
}

absl::StatusOr<Layout> LayoutOf(const v1::ElasticMesh& mesh, const runtime::ModelConfig& model) {
  COHORT_ASSIGN_OR_RETURN(const Arrangement arrangement, ArrangementOf(mesh, model));
  COHORT_ASSIGN_OR_RETURN(const Mesh ranks, MeshOf(mesh, model));
  // What computes in f64 has its state in it (Device::state_dtype).
  const DataType state =
      mesh.config().train().dtype() == Name(DataType::kF64) ? DataType::kF64 : DataType::kF32;
  return TrainingLayout(model, arrangement, ranks, state, mesh.config().train().deterministic());
}

std::string DebugString(const v1::ElasticMesh& mesh, const runtime::ModelConfig& model) {
  const absl::StatusOr<Arrangement> arrangement = ArrangementOf(mesh, model);
  return absl::StrCat(mesh.members_size(), mesh.members_size() == 1 ? " rank: " : " ranks: ",
                      arrangement.ok() ? arrangement->shape.DebugString() : arrangement.status().ToString(),
                      ", ", mesh.config().parallel().sharding());
}

}  // namespace cohort::parallel
