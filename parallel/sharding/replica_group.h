// The ranks that hold the same parameters of one placement, and the communicators in which their shards move.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "parallel/placements.h"
#include "parallel/sharding/shard_tree.h"

namespace cohort::parallel {

// Ranks that hold the same piece at `coarse` and cut it into the pieces of `fine`, in the order of these. No
// communicator where the levels are equal: nothing moves.
struct ShardMove {
  int coarse = 1, fine = 1;
  std::shared_ptr<comm::Communicator> ranks;  // over the device's memory

  bool moves() const { return ranks != nullptr; }
};

struct ReplicaGroup {
  const PlacementRow* row;
  Splits splits;
  ShardTree tree;
  int rank;  // of splits.replicas
  // Each has a communicator of its own: what is waited for never queues behind something else.
  ShardMove gather = {};   // parameters, to whole ones
  ShardMove refill = {};   // the same from the secondary shard
  ShardMove reduce = {};   // gradients of a micro-batch, from whole ones
  ShardMove finish = {};   // the step's, to the optimizer's pieces
  ShardMove sum = {};      // these, over the ranks that hold the same ones
  ShardMove publish = {};  // new parameters, from the optimizer's pieces
  // All replicas, over the device's memory; null where Connect was not asked for it.
  std::shared_ptr<comm::Communicator> everyone = nullptr;

  // Ranks with the same piece of the optimizer's state, and this one's place among them.
  int copies() const { return splits.replicas / splits.optimizer; }
  int copy() const { return rank / splits.optimizer; }

  // Collective over the row's replicas in `groups`. `stage`: the table over the ranks of a stage (Resolve).
  static absl::StatusOr<std::unique_ptr<ReplicaGroup>> Connect(const PlacementRow& row, const Splits& stage,
                                                               const MeshCommunicators& groups,
                                                               bool everyone = false);
};

}  // namespace cohort::parallel
