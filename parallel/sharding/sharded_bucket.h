// The flat tensors of a group's parameters of one placement, split over ranks as the table says, and what moves them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "comm/work.h"
#include "parallel/sharding/memory_counter.h"
#include "parallel/sharding/replica_group.h"
#include "parallel/sharding/tree_gradient.h"
#include "runtime/model/parameter.h"
#include "runtime/train/trainable.h"

namespace cohort::parallel {

// Buckets of one group and placement lie one after another in flat tensors of n elements, so that they move in one
// message. Of each kind of state this rank keeps its range of the n elements at the level of the table:
//
//   values      compute type, the parameters' level; the secondary shard beside them where there is one
//   gradients   state type, the gradients' level; where the optimizer's is finer, its piece beside them
//   masters     state type, the optimizer's level; where compute and state type are one, a view of the values
//
// An optimizer's piece lies within this rank's own piece of the values, so the optimizer writes new values where they
// belong, and gathers of them work in place. Whole values and whole gradients exist only while they are used, unless
// they are not split at all. Every call but the last two is made by all ranks of the replica group, in one order. One thread.
class ShardedBucket {
 public:
  // `parts` outlive it and are views of its tensors, undefined while those do not exist. `gather` and
  // `reduce`: codecs on the wire. `number` tells buckets of a model apart. `order`: deterministic mode, where
  // sums go by tree_gradient.h; null otherwise.
  ShardedBucket(const ReplicaGroup& group, std::vector<runtime::ParameterBucket*> parts,
                runtime::Device& device, DataType compute, MemoryCounter& memory,
                std::optional<comm::CodecKind> gather, std::optional<comm::CodecKind> reduce, uint64_t number,
                const LeafOrder* order = nullptr);
  ShardedBucket(const ShardedBucket&) = delete;

  int64_t elements() const { return elements_; }
  const ReplicaGroup& group() const { return group_; }
  const std::vector<runtime::ParameterBucket*>& parts() const { return parts_; }
  // Of a parameter that counts elsewhere.
  bool copy() const { return parts_.front()->parameters.front()->copy; }

  // Takes the memory of what stays; gradients are zero, values undefined.
  void Allocate();
  // In between, the parts' values and masters are whole, so that they can be set; afterwards this rank keeps its pieces.
  void BeginWhole();
  void EndWhole();

  // ---- Values ----
  // Starts to spread what the optimizer wrote. Until that is over the values are used by nothing but it.
  void StartPublish();
  bool PublishDone() const { return publish_.Done(); }
  absl::Status WaitPublished();
  // A gather: its memory is taken; once new values are spread it starts, and after WaitGather the parts'
  // values are whole.
  void BeginGather();
  void StartGather();
  absl::Status WaitGather();
  void FreeWhole();  // waits for a gather that was started and that nobody waited for

  // ---- Gradients ----
  void BeginStep();
  // The parts' gradients can be accumulated into: by a micro-batch, or by several that interleave.
  void BeginGradient();
  // Three sums, each after the one before is over: a micro-batch's to this rank's shard; then, once a step, from shards
  // to the optimizer's pieces, and of these over the ranks that hold the same.
  enum Sum : uint8_t { kMicroBatch, kToOptimizer, kOverCopies, kDone };
  comm::Work StartSum(Sum sum);
  // After kMicroBatch, and in deterministic mode after kToOptimizer: whole gradients go.
  void EndGradient();

  // In deterministic mode: whose gradients come next, and that all of them are in. There is one sum a step.
  void EnterMicroBatch(int micro_batch);
  void CloseMicroBatch();

  // This rank's piece for the optimizer: complete after the last sum.
  const runtime::Tensor& gradient() const { return own_gradient_.defined() ? own_gradient_ : gradient_; }
  // The part of it that this rank alone has of all replicas.
  runtime::Tensor gradient_of_one() const {
    return Within(gradient(), group_.splits.optimizer, group_.splits.replicas);
  }
  // One for each part, perhaps empty, in their order; without names.
  std::vector<runtime::OptimizerSlice> Slices() const;
  // The elements that they hold.
  ElementRange optimised() const { return Held(group_.splits.optimizer); }

 private:
  ElementRange Held(int level) const { return group_.tree.RangeOf(level, group_.rank, elements_); }
  // A rank's range at `inner` within the tensor that holds its range at `outer`.
  runtime::Tensor Within(const runtime::Tensor& tensor, int outer, int inner) const;
  std::vector<size_t> PartsOf(const ShardMove& move) const {
    return group_.tree.Parts(move.coarse, move.fine, group_.rank, elements_);
  }
  bool own_masters() const { return compute_ != state_; }
  // Makes the parts views of what exists.
  void Bind();
  comm::Work ReduceScatter(const ShardMove& move, const runtime::Tensor& from, const runtime::Tensor& to);

  const ReplicaGroup& group_;
  const std::vector<runtime::ParameterBucket*> parts_;
  std::vector<int64_t> ends_;  // of the parts
  int64_t elements_ = 0;
  runtime::Device& device_;
  const DataType compute_, state_;
  MemoryCounter& memory_;
  const std::optional<comm::CodecKind> gather_codec_, reduce_codec_;
  const uint64_t number_;
  uint64_t encoded_ = 0;  // calls with a codec so far

  const LeafOrder* const order_;
  std::optional<TreeGradient> tree_;  // where there is an order

  runtime::Tensor value_, secondary_, gradient_, own_gradient_, master_;
  bool secondary_valid_ = false;
  bool accumulated_ = false;  // gradient_ holds earlier micro-batches of this step
  runtime::Tensor whole_, whole_gradient_;
  bool gathering_ = false;
  comm::Work gather_, publish_;
};

}  // namespace cohort::parallel
