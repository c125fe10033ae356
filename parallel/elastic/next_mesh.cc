#include "parallel/elastic/next_mesh.h"

#include <algorithm>
#include <cstdint>
#include <map>
#include <numeric>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "comm/check.h"
#include "parallel/arrangement.h"
#include "parallel/elastic/policy.h"
#include "parallel/planner/legal_plans.h"
#include "parallel/planner/plan_config.h"
#include "parallel/planner/planner.h"
#include "parallel/planner/policy.h"

namespace cohort::parallel {
namespace {

// What may not change: the sharding is the user's choice, recomputation a matter of his memory, and of what bits depend
// on nothing.
v1::TrainConfig Fixed(const v1::TrainConfig& config) {
  v1::TrainConfig fixed;
  fixed.mutable_train()->set_recompute(config.train().recompute());
  v1::ParallelSection& section = *fixed.mutable_parallel();
  const v1::ParallelSection& now = config.parallel();
  section.set_sharding(now.sharding());
  if (now.has_secondary()) section.set_secondary(now.secondary());
  if (now.has_gather_codec()) section.set_gather_codec(now.gather_codec());
  if (now.has_reduce_codec()) section.set_reduce_codec(now.reduce_codec());
  if (config.train().deterministic()) {
    section.set_context(now.context());
    section.set_tensor(now.tensor());
    fixed.mutable_train()->set_micro_batch(config.train().micro_batch());
  }
  return fixed;
}

// The fastest mesh with the axes that there are, where none that is faster could be told from it: the prices of a machine
// on which no step was measured are not that good, and what was asked for once is nearest to it.
absl::StatusOr<planner::PlannedMesh> BestMesh(const planner::ModelCost& costs, const planner::Work& work,
                                              const planner::Cluster& cluster,
                                              const planner::Choices& choices, const v1::TrainConfig& now) {
  COHORT_ASSIGN_OR_RETURN(const planner::MeshRanking any,
                          planner::RankMeshes(costs, work, cluster, choices, 1));
  planner::Choices same = choices;
  same.pipeline = now.parallel().pipeline();
  same.context = now.parallel().context();
  same.tensor = now.parallel().tensor();
  same.expert = now.parallel().expert();
  const absl::StatusOr<planner::MeshRanking> stays =
      planner::RankMeshes(costs, work, cluster, same, 1);  // an error: not with these numbers
  const bool alike =
      stays.ok() && stays->best[0].seconds() <= (1 + planner::policy::kAssumedError) * any.best[0].seconds();
  return alike ? stays->best[0] : any.best[0];
}

std::string Words(int ranks, int all, const std::string& what) {
  std::string words = absl::StrCat(ranks, ranks == 1 ? " rank trains: " : " ranks train: ", what);
  if (ranks < all) absl::StrAppend(&words, "; ", all - ranks, " spare");
  return words;
}

// The axes that there are, over as many ranks as they divide; fewer pipeline ranks, then none, where they divide none.
absl::StatusOr<NextMesh> SameAxes(const v1::TrainConfig& config, const runtime::ModelConfig& model, int all) {
  absl::Status why;
  for (int ranks = all; ranks >= 1; --ranks) {
    v1::TrainConfig next = config;
    const int inner = config.parallel().pipeline() * config.parallel().context() * config.parallel().tensor();
    next.mutable_parallel()->set_shard(
        std::gcd(config.parallel().shard(), std::max(1, ranks / std::max(1, inner))));
    const absl::Status status = ArrangementOf(next.parallel(), model, ranks).status();
    if (status.ok()) {
      return NextMesh{.config = std::move(next), .ranks = ranks, .why = Words(ranks, all, "the same axes")};
    }
    why.Update(status);
  }
  return absl::NotFoundError(
      absl::StrCat("no number of ranks up to ", all, " can train this: ", why.message()));
}

// Numbers of ranks, the largest first: those that are tried before all others.
std::vector<int> NumbersToTry(const planner::ModelCost& costs, const planner::Work& work, int all,
                              const planner::Choices& choices) {
  std::vector<int> numbers;
  if (all <= elastic_policy::kEveryNumberUpTo) {
    numbers.resize(static_cast<size_t>(all));
    std::iota(numbers.rbegin(), numbers.rend(), 1);
    return numbers;
  }
  // Ranking the meshes of one number takes up to some tenths of a second, counting them some microseconds.
  size_t most = 0;
  const int least = all - static_cast<int>(all * elastic_policy::kSparesTried);
  for (int ranks = all; ranks >= least && numbers.size() < elastic_policy::kNumbersTried; --ranks) {
    const size_t meshes = planner::CountLegalShapes(costs, work, ranks, choices);
    if (meshes == 0 || meshes < 2 * most) continue;
    most = meshes;
    numbers.push_back(ranks);
  }
  return numbers;
}

}  // namespace

absl::StatusOr<NextMesh> PlanNextMesh(const v1::TrainConfig& config, const runtime::ModelConfig& model,
                                      const planner::Cluster& cluster) {
  const int all = cluster.ranks();
  const absl::StatusOr<planner::Choices> choices = planner::ChoicesOf(Fixed(config));
  if (!choices.ok() || config.parallel().hybrid_tokens() > 0) return SameAxes(config, model, all);
  const auto compute = ParseDataType(config.train().dtype());
  COHORT_CHECK(compute.has_value(), "a complete configuration has dtype %s", config.train().dtype().c_str());
  const planner::Work work = {.sequence_length = config.data().sequence_length(),
                              .global_batch = config.train().global_batch(),
                              .compute_bytes = static_cast<int>(SizeOf(*compute))};
  const planner::ModelCost costs(model, work.sequence_length);

  struct Found {
    int ranks;
    planner::PlannedMesh mesh;
  };
  std::vector<Found> found;
  absl::Status why;
  std::vector<int> numbers = NumbersToTry(costs, work, all, *choices);
  const size_t preferred = numbers.size();
  bool lacks_memory = false;  // fewer ranks have less
  // Where no mesh of those is legal after all, the largest number with one.
  for (int ranks = all; preferred < static_cast<size_t>(all) && ranks >= 1; --ranks) numbers.push_back(ranks);
  for (size_t i = 0; i < numbers.size() && (i < preferred || (found.empty() && !lacks_memory)); ++i) {
    const int ranks = numbers[i];
    COHORT_ASSIGN_OR_RETURN(const planner::Cluster part, cluster.First(ranks));
    absl::StatusOr<planner::PlannedMesh> best = BestMesh(costs, work, part, *choices, config);
    if (!best.ok()) {
      why.Update(best.status());
      lacks_memory = lacks_memory || absl::IsResourceExhausted(best.status());
      continue;
    }
    v1::TrainConfig next = config;
    planner::WritePlan(best->plan, next);
    why.Update(ArrangementOf(next.parallel(), model, ranks).status());
    if (ArrangementOf(next.parallel(), model, ranks).ok()) found.push_back({ranks, *best});
    // Half the ranks are not faster by what is still to be tried.
    if (!found.empty() && ranks <= found.front().ranks / 2) break;
  }
  if (found.empty()) {
    return absl::NotFoundError(
        absl::StrCat("no number of ranks up to ", all, " can train this: ", why.message()));
  }
  const double fastest = std::min_element(found.begin(), found.end(), [](const Found& a, const Found& b) {
                           return a.mesh.seconds() < b.mesh.seconds();
                         })->mesh.seconds();
  const auto chosen = std::find_if(found.begin(), found.end(), [&](const Found& one) {
    // Parity needs hosts, whose ranks train: then none is spare that a mesh has room for.
    return config.elastic().lost_hosts() > 0 ||
           one.mesh.seconds() <= (1 + elastic_policy::kSpareGain) * fastest;
  });
  NextMesh next{.config = config, .ranks = chosen->ranks, .why = ""};
  planner::WritePlan(chosen->mesh.plan, next.config);
  if (config.train().deterministic())
    next.config.mutable_train()->set_micro_batch(config.train().micro_batch());
  next.why = Words(chosen->ranks, all,
                   absl::StrFormat("%s, predicted %.3g s a step", chosen->mesh.plan.DebugString(),
                                   chosen->mesh.seconds()));
  return next;
}

}  // namespace cohort::parallel
