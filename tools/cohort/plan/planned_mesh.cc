#include "tools/cohort/plan/planned_mesh.h"

#include <chrono>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "comm/check.h"
#include "parallel/global_sums.h"
#include "parallel/planner/plan_config.h"
#include "parallel/planner/planner.h"

namespace cohort::tools {

absl::StatusOr<v1::TrainConfig> WithPlannedMesh(v1::TrainConfig config,
                                                const runtime::ResolvedConfig& defaults,
                                                runtime::Device& device, comm::Communicator& world) {
  namespace planner = parallel::planner;
  const auto begin = std::chrono::steady_clock::now();
  COHORT_ASSIGN_OR_RETURN(const planner::Choices choices, planner::ChoicesOf(config));
  const auto compute = ParseDataType(defaults.config.train().dtype());
  COHORT_CHECK(compute.has_value(), "a validated config has dtype %s",
               defaults.config.train().dtype().c_str());
  const planner::Work work = {.sequence_length = defaults.config.data().sequence_length(),
                              .global_batch = defaults.config.train().global_batch(),
                              .compute_bytes = static_cast<int>(SizeOf(*compute))};
  const planner::ModelCost model(defaults.model, work.sequence_length);
  COHORT_ASSIGN_OR_RETURN(const planner::Cluster cluster,
                          planner::RunningCluster(world, device, *compute, model, work));
  COHORT_ASSIGN_OR_RETURN(const planner::MeshRanking ranking,
                          planner::RankMeshes(model, work, cluster, choices));
  const planner::MeshPlan& plan = ranking.best[0].plan;
  // Numbers are the same on all ranks, and so are plans; a rank that was built otherwise must not train on.
  COHORT_ASSIGN_OR_RETURN(const std::vector<std::string> plans,
                          parallel::GatherStrings(world, plan.DebugString()));
  for (const std::string& other : plans) {
    if (other != plans[0]) {
      return absl::InternalError(absl::StrCat("parallel.mesh: auto: ranks plan different meshes, ", plans[0],
                                              " and ", other, ": are they the same program?"));
    }
  }
  planner::WritePlan(plan, config);
  if (world.rank() == 0) {
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    std::printf("parallel.mesh: auto, after %.1f s: %s\n%s\n", seconds, plan.DebugString().c_str(),
                ranking.Why(cluster).c_str());
  }
  return config;
}

}  // namespace cohort::tools
