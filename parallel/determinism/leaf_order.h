// Whose leaves of the sum tree a rank holds, and in which micro-batch it computes them: of each placement of
// parameters. A pure function of mesh and batch.
#pragma once

#include <vector>

#include "parallel/determinism/sum_tree.h"
#include "parallel/determinism/virtual_shards.h"
#include "parallel/mesh.h"
#include "runtime/model/parameter.h"

namespace cohort::parallel {

// A rank's gradients of a parameter come from the tokens of its source ranks: itself, or, of an expert, the
// ranks of its expert group. Each source computes a shard at a time; what it made goes into the leaf of (its
// part of the sequences, the shard), apart from what others made.
struct LeafOrder {
  SumPlan plan;                               // its holders are the replicas, in the order of their group
  std::vector<std::vector<TreeNode>> leaves;  // of each holder
  // Of this rank: [round][source], the leaf that the source's micro-batch adds to; level -1: none.
  std::vector<std::vector<TreeNode>> leaf_of;
  int64_t micro_batches_per_leaf = 1;

  static constexpr TreeNode kNone = {-1, 0};
  int sources() const { return leaf_of.empty() ? 1 : static_cast<int>(leaf_of[0].size()); }
};

// Of world rank `rank`.
LeafOrder OrderOf(runtime::Placement placement, const Mesh& mesh, const VirtualShards& shards, int rank);

}  // namespace cohort::parallel
