// The order of sums in deterministic mode: one fixed binary tree over virtual shards, whatever ranks hold its
// leaves. Pure values; no communication.
#pragma once

#include <compare>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"

namespace cohort::parallel {

// Node (level, index) is the sum of its children (level - 1, 2 index) and (level - 1, 2 index + 1); those of
// level 0 are leaves. Where only one child exists, a node is that child.
struct TreeNode {
  int level = 0, index = 0;

  TreeNode parent() const { return {level + 1, index / 2}; }
  TreeNode sibling() const { return {level, index ^ 1}; }
  auto operator<=>(const TreeNode&) const = default;
};

// A tree over the gradients of `parts` x `shards`: a shard is a run of samples of the global batch, and where
// context or tensor groups share sequences, every part of such a group has a gradient of its own for the same
// shard. Each part's shards are a subtree, so that a rank, which computes one part of a run of shards, can
// add most of its own.
//
// Which leaves there are depends on the batch and on the degrees of the context and tensor axes alone.
class SumTree {
 public:
  SumTree() = default;
  SumTree(int shards, int parts);

  int shards() const { return shards_; }
  int parts() const { return parts_; }
  int leaves() const { return shards_ * parts_; }
  TreeNode Leaf(int part, int shard) const { return {0, part * width_ + shard}; }
  TreeNode root() const { return {levels_, 0}; }
  bool Exists(TreeNode node) const;
  // Every leaf, in order.
  std::vector<TreeNode> Leaves() const;

 private:
  // Leaves of a part are numbered from a multiple of `width_`, a power of two.
  int shards_ = 1, parts_ = 1, width_ = 1, levels_ = 0;
};

// What is left of these leaves when all are added that can be: the largest nodes all of whose leaves are
// among them, in order. Distinct leaves, any order.
std::vector<TreeNode> LargestNodes(const SumTree& tree, absl::Span<const TreeNode> leaves);

// Number `from` is added to number `into`, which then stands for the parent of both.
struct Addition {
  int into = 0, from = 0;
  bool operator==(const Addition&) const = default;
};

// Adds up numbered nodes as they come: says what to add to what as soon as both children of a node are there.
class NodeSums {
 public:
  explicit NodeSums(const SumTree& tree) : tree_(tree) {}

  // Node `number` is there. The additions to make at once, in order.
  std::vector<Addition> Add(TreeNode node, int number);
  struct Held {
    TreeNode node;
    int number;
  };
  // The nodes that are there and wait for a sibling, in order.
  const std::vector<Held>& held() const { return held_; }
  void Clear() { held_.clear(); }

 private:
  SumTree tree_;
  std::vector<Held> held_;
};

// How the holders of one parameter (its replicas) add it up. Each adds its own leaves as far as that goes;
// what it is left with goes to the owner of each piece of the parameter, which adds it up in the order of the
// tree.
struct SumPlan {
  SumTree tree;
  std::vector<std::vector<TreeNode>> held;  // by holder: what it sends to owners
  // By an owner, of all held nodes, numbered holder by holder.
  std::vector<Addition> additions;
  int result = 0;  // the number that ends up as the root

  int nodes() const;
};

// leaves[h]: those of holder h. Each leaf has one holder.
SumPlan MakeSumPlan(const SumTree& tree, const std::vector<std::vector<TreeNode>>& leaves);

// Runs the plan with words for numbers and compares with the tree's own sum: every leaf counts once, in its
// place. INTERNAL says what is wrong.
absl::Status CheckSumPlan(const SumPlan& plan, const std::vector<std::vector<TreeNode>>& leaves);

// The sum over the tree of values[leaf], leaf by leaf in the order of Leaves().
double SumInOrder(const SumTree& tree, absl::Span<const double> values);

}  // namespace cohort::parallel
