#include "parallel/elastic/decide_mesh.h"

#include <unistd.h>

#include <algorithm>
#include <utility>

#include "comm/check.h"
#include "parallel/arrangement.h"
#include "parallel/configured_model.h"
#include "parallel/elastic/next_mesh.h"

namespace cohort::parallel {
namespace {

// Of the ranks that stay, in their order.
absl::StatusOr<planner::Cluster> ClusterOf(comm::Communicator& world, const std::vector<int>& staying,
                                           double flops, int64_t memory) {
  COHORT_ASSIGN_OR_RETURN(
      planner::Cluster cluster,
      planner::DescribedCluster(world.TopologyText(), "the ranks that are there", flops, memory));
  const comm::HostMap& all = *cluster.machine.hosts;
  std::vector<comm::HostMap::Place> places;
  for (const int rank : staying) {
    places.push_back({all.host_of(rank), all.socket_of(rank), all.numa_of(rank)});
  }
  cluster.machine.hosts = std::make_shared<const comm::HostMap>(places);
  const double cores = static_cast<double>(sysconf(_SC_NPROCESSORS_ONLN));
  cluster.cores = std::min(1.0, cores / world.topology().local_size());
  return cluster;
}

}  // namespace

std::vector<int> HostsOf(const comm::Communicator& world) {
  std::vector<int> hosts;
  for (int rank = 0; rank < world.size(); ++rank) hosts.push_back(world.topology().host_of(rank));
  return hosts;
}

absl::StatusOr<v1::ElasticDecision> DecideMesh(comm::Communicator& world, uint32_t epoch,
                                               const std::vector<int>& staying, const v1::TrainConfig* now,
                                               const ElasticOptions& options) {
  NextMesh next;
  if (now == nullptr) {
    next = {.config = options.config, .ranks = world.size(), .why = "as the configuration says"};
    COHORT_RETURN_IF_ERROR(
        parallel::ArrangementOf(next.config.parallel(), options.model, world.size()).status());
  } else {
    COHORT_ASSIGN_OR_RETURN(const planner::Cluster cluster, ClusterOf(world, staying, options.flops, 0));
    COHORT_ASSIGN_OR_RETURN(next, PlanNextMesh(*now, options.model, cluster));
  }
  v1::ElasticDecision decision;
  decision.set_why(next.why);
  v1::ElasticMesh& mesh = *decision.mutable_mesh();
  mesh.set_epoch(epoch);
  *mesh.mutable_config() = next.config;
  const std::vector<int> hosts = HostsOf(world);
  for (int n = 0; n < next.ranks; ++n) {
    const auto rank = static_cast<size_t>(staying[static_cast<size_t>(n)]);
    decision.add_world_ranks(static_cast<int>(rank));
    mesh.add_members(world.members()[rank]);
    mesh.add_host_of(hosts[rank]);
  }
  return decision;
}

absl::StatusOr<std::unique_ptr<ElasticPart>> MakePart(
    comm::Communicator& world, const v1::ElasticDecision& decision, const runtime::ModelConfig& model,
    runtime::Device& device, const std::function<std::unique_ptr<BatchSource>()>& make_source) {
  auto part = std::make_unique<ElasticPart>();
  part->mesh = decision.mesh();
  const auto& ranks = decision.world_ranks();
  const auto place = std::find(ranks.begin(), ranks.end(), world.rank());
  const auto mesh_rank = static_cast<int>(place - ranks.begin());
  const bool spare = place == ranks.end();
  COHORT_ASSIGN_OR_RETURN(part->group, world.Split(spare ? -1 : 0, mesh_rank));
  if (spare) return part;
  COHORT_ASSIGN_OR_RETURN(
      part->model, MakeConfiguredModel(part->mesh.config(), model, device, part->group, make_source()));
  part->optimizer = runtime::OptimizerState::For(part->model->slices());
  return part;
}

}  // namespace cohort::parallel
