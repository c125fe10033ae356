#include "parallel/sharding/tree_memory.h"

#include <utility>

namespace cohort::parallel {

TreeMemory::TreeMemory(const LeafOrder& order, const Splits& splits, int rank, int64_t elements,
                       int64_t element_bytes, std::function<void(int64_t bytes)> add)
    : order_(order),
      tree_(splits),
      replicas_(splits.replicas),
      rank_(rank),
      elements_(elements),
      element_bytes_(element_bytes),
      add_(std::move(add)),
      sum_taken_(splits.optimizer > 1),  // a piece is too small for a whole gradient
      sums_(order.plan.tree) {}

void TreeMemory::Enter(int micro_batch) {
  micro_batch_ = micro_batch;
  if (begun_.contains(micro_batch)) Open();
}

void TreeMemory::Open() {
  begun_.insert(micro_batch_);
  const int64_t whole = elements_ * element_bytes_;
  for (const TreeNode leaf : order_.leaf_of[micro_batch_]) {
    if (leaf == LeafOrder::kNone) {
      if (!std::exchange(nobodys_, true)) add_(whole);
      continue;
    }
    const auto [opened, added] = open_.try_emplace(leaf);
    if (!added) continue;
    opened->second.bytes = std::exchange(sum_taken_, true) ? whole : 0;
    add_(opened->second.bytes);
  }
}

void TreeMemory::Close() {
  begun_.erase(micro_batch_);
  if (std::exchange(nobodys_, false)) add_(-elements_ * element_bytes_);
  for (const TreeNode leaf : order_.leaf_of[micro_batch_]) {
    if (leaf == LeafOrder::kNone) continue;
    const auto found = open_.find(leaf);
    if (++found->second.micro_batches < order_.micro_batches_per_leaf) continue;
    nodes_.push_back(found->second.bytes);
    open_.erase(found);
    for (const auto& [into, from] : sums_.Add(leaf, static_cast<int>(nodes_.size()) - 1)) {
      add_(-std::exchange(nodes_[from], 0));
    }
  }
}

void TreeMemory::StartExchange() {
  int64_t held = 0;
  for (const NodeSums::Held& node : sums_.held()) held += nodes_[node.number];
  leaving_ = held;
  if (replicas_ == 1) return;
  const auto count = static_cast<int64_t>(sums_.held().size());
  const bool as_it_lies = count == 1 && tree_.InOrder();
  const int64_t sent = as_it_lies ? 0 : count * elements_ * element_bytes_;
  const int64_t received =
      order_.plan.nodes() * tree_.RangeOf(replicas_, rank_, elements_).size() * element_bytes_;
  add_(sent + received);
  leaving_ += sent + received;
  if (as_it_lies) return;
  add_(-held);
  leaving_ -= held;
}

void TreeMemory::Release() { add_(-std::exchange(leaving_, 0)); }

}  // namespace cohort::parallel
