// The memory of a bucket's gradients in deterministic mode: TreeGradient's, call by call, as numbers.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <vector>

#include "parallel/determinism/leaf_order.h"
#include "parallel/sharding/shard_tree.h"

namespace cohort::parallel {

// The calls are TreeGradient's, in the same order. What stays, this rank's piece of the sum, is not counted.
class TreeMemory {
 public:
  // `order` outlives this. `bytes`: of the whole gradients. `add`: told of everything that is taken (+) and freed (-).
  TreeMemory(const LeafOrder& order, const Splits& splits, int rank, int64_t elements, int64_t element_bytes,
             std::function<void(int64_t bytes)> add);

  void Enter(int micro_batch);  // and opens it again where it has begun
  void Open();
  void Close();
  void StartExchange();
  void Release();

 private:
  struct OpenLeaf {
    int64_t bytes = 0;
    int64_t micro_batches = 0;
  };

  const LeafOrder& order_;
  const ShardTree tree_;
  const int replicas_, rank_;
  const int64_t elements_, element_bytes_;
  const std::function<void(int64_t bytes)> add_;
  bool sum_taken_;

  int micro_batch_ = 0;
  std::set<int> begun_;
  std::map<TreeNode, OpenLeaf> open_;
  bool nobodys_ = false;
  NodeSums sums_;
  std::vector<int64_t> nodes_;  // bytes, by number
  int64_t leaving_ = 0;         // bytes of what is exchanged
};

}  // namespace cohort::parallel
