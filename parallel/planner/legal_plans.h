// Which plans can be at all: arithmetic of ranks, blocks, heads and tokens, before anything is priced. Pure.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "parallel/planner/mesh_plan.h"
#include "parallel/planner/model_cost.h"
#include "parallel/planner/refusals.h"

namespace cohort::parallel::planner {

// Sequences of the data rank that has most.
int64_t LocalBatch(const Work& work, int ranks, const MeshShape& shape);

// OK, or the reason why the plan cannot be on so many ranks: axes that do not divide, heads, blocks, experts, tokens,
// sharding.
absl::Status CheckPlan(const ModelCost& model, const Work& work, int ranks, const MeshPlan& plan);

inline constexpr char kMeshes[] = "meshes";  // what Refusals call shapes

// Every shape whose axes divide the ranks and the model, the slowest axis varying slowest; others are counted in
// `refused`.
std::vector<MeshShape> LegalShapes(const ModelCost& model, const Work& work, int ranks,
                                   const Choices& choices, Refusals& refused);
// How many these are. Puts no reason into words: for hundreds of numbers of ranks one after another.
size_t CountLegalShapes(const ModelCost& model, const Work& work, int ranks, const Choices& choices);

}  // namespace cohort::parallel::planner
