// Which mesh trains a model fastest on a cluster: every legal one is priced, and those that fit are ranked. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "parallel/planner/cluster.h"
#include "parallel/planner/mesh_plan.h"
#include "parallel/planner/model_cost.h"
#include "parallel/planner/policy.h"
#include "parallel/planner/price.h"
#include "parallel/planner/refusals.h"

namespace cohort::parallel::planner {

struct PlannedMesh {
  MeshPlan plan;
  MeshPrice price;

  bool fits = true;  // into a rank's memory

  double seconds() const { return price.time.total(); }
};

struct MeshRanking {
  // Those that fit, fastest first; never empty; at most as many as were asked for.
  std::vector<PlannedMesh> best;
  // The best plan of each mesh (pipeline, context, tensor and expert ranks) that is not the first one's, as many as were
  // asked for: those that fit, fastest first, then those of which none does, smallest first.
  std::vector<PlannedMesh> others;
  // Copies of the whole model that differ in their data only: the fastest, or, where it does not fit, the smallest.
  std::optional<PlannedMesh> data_parallel;
  bool data_parallel_fits = false;

  int64_t meshes = 0;  // legal shapes
  int64_t priced = 0;  // plans: shapes with a sharding, a schedule, a micro-batch size, recomputation or not
  // Legal shapes that were not priced because computing alone takes them longer than the best ones found take in all.
  int64_t bounded = 0;
  Refusals refused;

  // How wrong these seconds may be, relatively, and from how many measured steps that is known; 0: it is assumed.
  double error = 0;
  int measured_steps = 0;

  // Ranked plans whose difference from the best is within the error; the best among them.
  int Indistinguishable() const;
  // Why not that one: the part in which it takes most longer than the first, or the bytes that it lacks.
  std::string WhyNot(const PlannedMesh& other, const Cluster& cluster) const;
  // Why the first one: what it saves against the runner-up and against data parallelism, and how sure that is.
  std::string Why(const Cluster& cluster) const;
};

// `choices` fixes what is said in it. Shardings with codecs are priced only where they are chosen, because they
// change the numbers that are computed. INVALID_ARGUMENT: no mesh is legal, with the reasons. RESOURCE_EXHAUSTED: none
// fits; says what the smallest needs. Takes well under a second for 10,000 ranks.
absl::StatusOr<MeshRanking> RankMeshes(const ModelCost& model, const Work& work, const Cluster& cluster,
                                       const Choices& choices = {}, size_t keep = policy::kKeptPlans);

}  // namespace cohort::parallel::planner
