// A bucket's gradients in deterministic mode: summed over virtual shards in the order of one tree, whatever
// the ranks.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <vector>

#include "comm/work.h"
#include "parallel/determinism/leaf_order.h"
#include "parallel/sharding/memory_counter.h"
#include "parallel/sharding/replica_group.h"

namespace cohort::parallel {

// Every virtual shard has a whole gradient of its own, a leaf. Two that are siblings are added as soon as
// both are there, so a rank holds about as many whole gradients as the tree has levels, however its sharding
// table splits gradients. Once a step, what it is left with goes to the owners of each element, which finish
// the sum: every rank of the replica group owns a piece. Then the copies of the optimizer's pieces gather
// them. tree_memory.h says what that takes.
//
//   BeginStep; for every micro-batch: Enter, Open, (the backward), Close; StartExchange; Combine; StartGather;
//   Release
//
// Micro-batches may interleave: Enter says whose turn it is. One thread.
class TreeGradient {
 public:
  // All outlive this. `sum`: this rank's piece of the gradient for the optimizer, where the sum ends.
  TreeGradient(const LeafOrder& order, const ReplicaGroup& group, int64_t elements, runtime::Device& device,
               MemoryCounter& memory, runtime::Tensor sum);

  void BeginStep();
  void Enter(int micro_batch) { micro_batch_ = micro_batch; }
  // Whether gradients of the micro-batch at hand are being accumulated.
  bool open() const { return begun_.contains(micro_batch_); }
  void Open();
  // Whole gradients to accumulate into, one for each source rank of this micro-batch.
  const std::vector<runtime::Tensor>& gradients() const { return bound_; }
  // The micro-batch's gradients are in.
  void Close();

  comm::Work StartExchange();
  void Combine();
  comm::Work StartGather();
  // What was exchanged goes: any time after Combine, or after an error.
  void Release();

 private:
  struct OpenLeaf {
    runtime::Tensor gradient;
    int64_t micro_batches = 0;  // that are in
  };

  runtime::Tensor Zeros();
  void Insert(TreeNode leaf, runtime::Tensor gradient);
  ElementRange Piece(int rank) const { return group_.tree.RangeOf(group_.splits.replicas, rank, elements_); }
  runtime::Tensor OwnPiece() const;  // within sum_

  const LeafOrder& order_;
  const ReplicaGroup& group_;
  const int64_t elements_;
  runtime::Device& device_;
  MemoryCounter& memory_;
  const runtime::Tensor sum_;

  int micro_batch_ = 0;
  std::set<int> begun_;  // micro-batches between Open and Close, also those of no shard
  std::map<TreeNode, OpenLeaf> open_;
  std::vector<runtime::Tensor> bound_;
  runtime::Tensor nobodys_;  // what is accumulated for no shard (zeros) goes nowhere
  bool sum_taken_ = false;   // its memory serves as one of the step's whole gradients
  NodeSums sums_;
  std::vector<runtime::Tensor> nodes_;  // by number
  runtime::Tensor sent_, received_;
};

}  // namespace cohort::parallel
