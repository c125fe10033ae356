#include "parallel/determinism/sum_tree.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "comm/check.h"

namespace cohort::parallel {

SumTree::SumTree(int shards, int parts) : shards_(shards), parts_(parts) {
  COHORT_CHECK(shards >= 1 && parts >= 1, "a tree over %d shards of %d parts", shards, parts);
  width_ = static_cast<int>(std::bit_ceil(static_cast<unsigned>(shards)));
  levels_ = std::bit_width(static_cast<unsigned>(width_ * parts) - 1);
}

bool SumTree::Exists(TreeNode node) const {
  // Within a part leaves come first and gaps after them, and no node that is smaller than a part crosses its
  // border: a node has a leaf where its first place is one.
  const int64_t first = static_cast<int64_t>(node.index) << node.level;
  return node.level <= levels_ && node.index >= 0 && first / width_ < parts_ && first % width_ < shards_;
}

std::vector<TreeNode> SumTree::Leaves() const {
  std::vector<TreeNode> leaves;
  for (int part = 0; part < parts_; ++part) {
    for (int shard = 0; shard < shards_; ++shard) leaves.push_back(Leaf(part, shard));
  }
  return leaves;
}

std::vector<Addition> NodeSums::Add(TreeNode node, int number) {
  std::vector<Addition> additions;
  while (node != tree_.root()) {
    if (tree_.Exists(node.sibling())) {
      const auto other = std::find_if(held_.begin(), held_.end(),
                                      [&](const Held& held) { return held.node == node.sibling(); });
      if (other == held_.end()) break;
      const int left = node.index % 2 == 0 ? number : other->number;
      additions.push_back({.into = left, .from = left == number ? other->number : number});
      number = left;
      held_.erase(other);
    }
    node = node.parent();
  }
  const auto first = [](TreeNode n) { return static_cast<int64_t>(n.index) << n.level; };
  const auto place = std::find_if(held_.begin(), held_.end(),
                                  [&](const Held& held) { return first(held.node) > first(node); });
  held_.insert(place, {node, number});
  return additions;
}

std::vector<TreeNode> LargestNodes(const SumTree& tree, absl::Span<const TreeNode> leaves) {
  NodeSums sums(tree);
  for (const TreeNode leaf : leaves) sums.Add(leaf, 0);
  std::vector<TreeNode> nodes;
  for (const NodeSums::Held& held : sums.held()) nodes.push_back(held.node);
  return nodes;
}

int SumPlan::nodes() const {
  int nodes = 0;
  for (const auto& of_holder : held) nodes += static_cast<int>(of_holder.size());
  return nodes;
}

SumPlan MakeSumPlan(const SumTree& tree, const std::vector<std::vector<TreeNode>>& leaves) {
  SumPlan plan{.tree = tree, .held = {}, .additions = {}, .result = 0};
  NodeSums sums(tree);
  int number = 0;
  for (const std::vector<TreeNode>& of_holder : leaves) {
    plan.held.push_back(LargestNodes(tree, of_holder));
    for (const TreeNode node : plan.held.back()) {
      for (const Addition& addition : sums.Add(node, number++)) plan.additions.push_back(addition);
    }
  }
  COHORT_CHECK(sums.held().size() == 1 && sums.held()[0].node == tree.root(),
               "%d leaves of a tree of %d are held by somebody, or not once each", number, tree.leaves());
  plan.result = sums.held()[0].number;
  return plan;
}

namespace {

// The tree's own sum of a node, in words.
std::string Words(const SumTree& tree, TreeNode node) {
  if (node.level == 0) return absl::StrCat(node.index);
  const TreeNode left{node.level - 1, 2 * node.index}, right = left.sibling();
  if (!tree.Exists(right)) return Words(tree, left);
  return absl::StrCat("(", Words(tree, left), "+", Words(tree, right), ")");
}

double Sum(const SumTree& tree, TreeNode node, absl::Span<const double> values, size_t& next) {
  if (node.level == 0) return values[next++];
  const TreeNode left{node.level - 1, 2 * node.index}, right = left.sibling();
  const double sum = Sum(tree, left, values, next);
  return tree.Exists(right) ? sum + Sum(tree, right, values, next) : sum;
}

}  // namespace

absl::Status CheckSumPlan(const SumPlan& plan, const std::vector<std::vector<TreeNode>>& leaves) {
  if (plan.held.size() != leaves.size()) {
    return absl::InternalError(
        absl::StrCat("a sum of ", leaves.size(), " holders is planned for ", plan.held.size()));
  }
  std::vector<std::string> numbers;
  for (size_t holder = 0; holder < leaves.size(); ++holder) {
    // What the holder's own additions, made as its leaves come, leave it with.
    NodeSums sums(plan.tree);
    std::vector<std::string> own;
    for (const TreeNode leaf : leaves[holder]) {
      own.push_back(absl::StrCat(leaf.index));
      for (const Addition& a : sums.Add(leaf, static_cast<int>(own.size()) - 1)) {
        own[a.into] = absl::StrCat("(", own[a.into], "+", own[a.from], ")");
      }
    }
    if (sums.held().size() != plan.held[holder].size()) {
      return absl::InternalError(absl::StrCat("holder ", holder, " ends with ", sums.held().size(),
                                              " nodes, the plan says ", plan.held[holder].size()));
    }
    for (size_t i = 0; i < sums.held().size(); ++i) {
      if (sums.held()[i].node != plan.held[holder][i]) {
        return absl::InternalError(
            absl::StrCat("node ", i, " of holder ", holder, " is another one than planned"));
      }
      numbers.push_back(own[sums.held()[i].number]);
    }
  }
  std::vector<bool> gone(numbers.size(), false);
  for (const auto& [into, from] : plan.additions) {
    const auto count = static_cast<int>(numbers.size());
    if (into < 0 || into >= count || from < 0 || from >= count || into == from || gone[into] || gone[from]) {
      return absl::InternalError(
          absl::StrCat("the plan adds ", from, " to ", into, ", of ", count, " nodes"));
    }
    numbers[into] = absl::StrCat("(", numbers[into], "+", numbers[from], ")");
    gone[from] = true;
  }
  const std::string want = Words(plan.tree, plan.tree.root());
  const bool in_range = plan.result >= 0 && plan.result < static_cast<int>(numbers.size());
  if (!in_range || numbers[plan.result] != want) {
    return absl::InternalError(
        absl::StrCat("the plan sums ", in_range ? numbers[plan.result] : "nothing", ", the tree ", want));
  }
  return absl::OkStatus();
}

double SumInOrder(const SumTree& tree, absl::Span<const double> values) {
  COHORT_CHECK(static_cast<int>(values.size()) == tree.leaves(), "%zu values for %d leaves", values.size(),
               tree.leaves());
  size_t next = 0;
  return Sum(tree, tree.root(), values, next);
}

}  // namespace cohort::parallel
