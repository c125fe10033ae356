#include "parallel/sharding/tree_gradient.h"

#include <algorithm>
#include <utility>

#include "comm/check.h"
#include "runtime/ops/ops.h"

namespace cohort::parallel {

using runtime::Tensor;

TreeGradient::TreeGradient(const LeafOrder& order, const ReplicaGroup& group, int64_t elements,
                           runtime::Device& device, MemoryCounter& memory, Tensor sum)
    : order_(order),
      group_(group),
      elements_(elements),
      device_(device),
      memory_(memory),
      sum_(std::move(sum)),
      sums_(order.plan.tree) {}

Tensor TreeGradient::Zeros() {
  // Where the optimizer's piece is everything, its memory is the first of the whole gradients. The first leaf
  // of all is the left child of every sum that it goes into, so where this rank alone makes the sum, it ends
  // up there.
  const bool reuse = !sum_taken_ && sum_.size() == elements_;
  sum_taken_ = true;
  const Tensor zeros =
      reuse ? sum_ : memory_.Empty(device_, elements_, device_.state_dtype(), StateKind::kGradients);
  device_.ops().Fill(zeros, 0);
  return zeros;
}

void TreeGradient::BeginStep() {
  begun_.clear();
  open_.clear();
  bound_.clear();
  nobodys_ = Tensor();
  sums_.Clear();
  nodes_.clear();
  Release();
  sum_taken_ = false;
}

void TreeGradient::Open() {
  begun_.insert(micro_batch_);
  bound_.clear();
  for (const TreeNode leaf : order_.leaf_of[micro_batch_]) {
    if (leaf == LeafOrder::kNone) {
      if (!nobodys_.defined()) {
        nobodys_ = memory_.Empty(device_, elements_, device_.state_dtype(), StateKind::kGradients);
      }
      bound_.push_back(nobodys_);
      continue;
    }
    OpenLeaf& opened = open_[leaf];
    if (!opened.gradient.defined()) opened.gradient = Zeros();
    bound_.push_back(opened.gradient);
  }
}

void TreeGradient::Close() {
  begun_.erase(micro_batch_);
  bound_.clear();
  nobodys_ = Tensor();
  for (const TreeNode leaf : order_.leaf_of[micro_batch_]) {
    if (leaf == LeafOrder::kNone) continue;
    const auto found = open_.find(leaf);
    COHORT_CHECK(found != open_.end(), "micro-batch %d ends in a shard that has not begun", micro_batch_);
    if (++found->second.micro_batches < order_.micro_batches_per_leaf) continue;
    Tensor gradient = std::move(found->second.gradient);
    open_.erase(found);
    Insert(leaf, std::move(gradient));
  }
}

void TreeGradient::Insert(TreeNode leaf, Tensor gradient) {
  nodes_.push_back(std::move(gradient));
  for (const auto& [into, from] : sums_.Add(leaf, static_cast<int>(nodes_.size()) - 1)) {
    device_.ops().Add(nodes_[into], nodes_[from], nodes_[into]);
    device_.Synchronize();
    nodes_[from] = Tensor();
  }
}

Tensor TreeGradient::OwnPiece() const {
  const ElementRange all = group_.tree.RangeOf(group_.splits.optimizer, group_.rank, elements_),
                     own = Piece(group_.rank);
  return sum_.Slice(own.begin - all.begin, own.end - all.begin);
}

comm::Work TreeGradient::StartExchange() {
  const int ranks = group_.splits.replicas;
  const std::vector<TreeNode>& mine = order_.plan.held[group_.rank];
  COHORT_CHECK(open_.empty() && sums_.held().size() == mine.size(), "%zu of %zu sums are there, %zu are open",
               sums_.held().size(), mine.size(), open_.size());
  std::vector<Tensor> held;
  for (const NodeSums::Held& node : sums_.held()) held.push_back(nodes_[node.number]);
  nodes_.clear();
  if (ranks == 1) {
    received_ = held[0];
    return comm::Work();
  }
  const DataType type = device_.state_dtype();
  if (held.size() == 1 && group_.tree.InOrder()) {
    sent_ = held[0];  // it lies as it is sent
  } else {
    const auto count = static_cast<int64_t>(held.size());
    sent_ = memory_.Empty(device_, count * elements_, type, StateKind::kGradients);
    int64_t at = 0;
    for (int rank = 0; rank < ranks; ++rank) {
      const ElementRange piece = Piece(rank);
      for (const Tensor& node : held) {
        device_.ops().Copy(node.Slice(piece.begin, piece.end), sent_.Slice(at, at + piece.size()));
        at += piece.size();
      }
    }
  }
  std::vector<size_t> counts;  // from rank to rank
  for (int from = 0; from < ranks; ++from) {
    for (int to = 0; to < ranks; ++to) {
      counts.push_back(order_.plan.held[from].size() * static_cast<size_t>(Piece(to).size()));
    }
  }
  received_ =
      memory_.Empty(device_, order_.plan.nodes() * Piece(group_.rank).size(), type, StateKind::kGradients);
  device_.Synchronize();
  return group_.everyone->AllToAllMatrix(sent_.raw(), received_.raw(), counts, type);
}

void TreeGradient::Combine() {
  if (group_.splits.replicas == 1) {
    if (received_.raw() != sum_.raw()) device_.ops().Copy(received_, sum_);
  } else {
    const int64_t size = Piece(group_.rank).size();
    const auto node = [&](int number) { return received_.Slice(number * size, (number + 1) * size); };
    const std::vector<Addition>& additions = order_.plan.additions;
    for (size_t i = 0; i < additions.size(); ++i) {
      // The last addition makes the root, where it belongs.
      const Tensor into = node(additions[i].into);
      device_.ops().Add(into, node(additions[i].from), i + 1 < additions.size() ? into : OwnPiece());
    }
    if (additions.empty()) device_.ops().Copy(node(order_.plan.result), OwnPiece());
  }
  device_.Synchronize();
}

void TreeGradient::Release() { sent_ = received_ = Tensor(); }

comm::Work TreeGradient::StartGather() {
  const ShardMove& move = group_.sum;
  if (!move.moves()) return comm::Work();
  return move.ranks->AllGather(OwnPiece().raw(), sum_.raw(),
                               group_.tree.Parts(move.coarse, move.fine, group_.rank, elements_),
                               device_.state_dtype());
}

}  // namespace cohort::parallel
