#include "parallel/determinism/leaf_order.h"

#include <algorithm>
#include <utility>

#include "comm/check.h"

namespace cohort::parallel {
namespace {

struct PlacementAxes {
  runtime::Placement placement;
  std::vector<Axis> replicas;  // along which ranks hold the same parameters
  std::vector<Axis> parts;     // along which their gradients are of parts of the same sequences
  std::vector<Axis>
      sources;  // along which ranks send tokens to each other's parameters; empty: a rank has its own
};

const PlacementAxes& AxesOf(runtime::Placement placement) {
  using enum Axis;
  static const auto& rows = *new std::vector<PlacementAxes>{
      {runtime::Placement::kReplicated, {kReplicate, kShard, kContext, kTensor}, {kContext, kTensor}, {}},
      {runtime::Placement::kTensor, {kReplicate, kShard, kContext}, {kContext}, {}},
      {runtime::Placement::kExpert, {kExpertData}, {kContext, kTensor}, {kExpert}},
  };
  const auto row =
      std::find_if(rows.begin(), rows.end(), [&](const auto& r) { return r.placement == placement; });
  COHORT_CHECK(row != rows.end(), "placement %d has no axes", static_cast<int>(placement));
  return *row;
}

std::vector<int> SourcesOf(const PlacementAxes& axes, const Mesh& mesh, int rank) {
  return axes.sources.empty() ? std::vector<int>{rank} : mesh.Group(axes.sources, rank);
}

}  // namespace

LeafOrder OrderOf(runtime::Placement placement, const Mesh& mesh, const VirtualShards& shards, int rank) {
  const PlacementAxes& axes = AxesOf(placement);
  const int ranks = mesh.Size(kBatchAxes);
  const SumTree tree(shards.shards, mesh.Size(axes.parts));
  LeafOrder order{
      .plan = {}, .leaves = {}, .leaf_of = {}, .micro_batches_per_leaf = shards.micro_batches_per_shard};
  for (const int replica : mesh.Group(axes.replicas, rank)) {
    std::vector<TreeNode>& leaves = order.leaves.emplace_back();
    for (const int source : SourcesOf(axes, mesh, replica)) {
      const IndexRange run = shards.ShardsOf(mesh.Coordinate(kBatchAxes, source), ranks);
      for (int64_t shard = run.begin; shard < run.end; ++shard) {
        leaves.push_back(tree.Leaf(mesh.Coordinate(axes.parts, source), static_cast<int>(shard)));
      }
    }
  }
  order.plan = MakeSumPlan(tree, order.leaves);
  for (int64_t round = 0; round < shards.RoundsOn(ranks); ++round) {
    std::vector<TreeNode>& of_round = order.leaf_of.emplace_back();
    for (const int source : SourcesOf(axes, mesh, rank)) {
      const int shard = shards.ShardIn(round, mesh.Coordinate(kBatchAxes, source), ranks);
      of_round.push_back(shard < 0 ? LeafOrder::kNone
                                   : tree.Leaf(mesh.Coordinate(axes.parts, source), shard));
    }
  }
  return order;
}

}  // namespace cohort::parallel
