// The mesh of an elastic training as a value that travels (proto/cohort/v1/elastic.proto), and what follows from it.
#pragma once

#include "absl/status/statusor.h"
#include "cohort/v1/elastic.pb.h"
#include "parallel/arrangement.h"
#include "parallel/mesh.h"
#include "parallel/reshard/layout.h"
#include "runtime/model/model_config.h"

namespace cohort::parallel {

// INVALID_ARGUMENT where the configuration does not fit as many ranks.
absl::StatusOr<Arrangement> ArrangementOf(const v1::ElasticMesh& mesh, const runtime::ModelConfig& model);

// The mesh itself. host_of: of its ranks.
absl::StatusOr<Mesh> MeshOf(const v1::ElasticMesh& mesh, const runtime::ModelConfig& model);

// What each of its ranks holds.
absl::StatusOr<Layout> LayoutOf(const v1::ElasticMesh& mesh, const runtime::ModelConfig& model);

// "4 ranks: pipeline 2 x tensor 2, zero-1".
std::string DebugString(const v1::ElasticMesh& mesh, const runtime::ModelConfig& model);

}  // namespace cohort::parallel
