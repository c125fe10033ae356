// The engine of the sharding table: owns a model's parameters, gradients and masters, split over ranks, and moves them
// around the decoder's uses.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "parallel/sharding/gather_order.h"
#include "parallel/sharding/memory.h"
#include "parallel/sharding/replica_group.h"
#include "parallel/sharding/sharded_bucket.h"
#include "runtime/model/decoder.h"
#include "runtime/ops/exact_squares.h"

namespace cohort::parallel {

// A run of a parameter in this rank's optimizer state: elements [first, first + count) of the parameter are
// [offset, offset + count) of slice `slice`.
struct OwnedRun {
  runtime::Parameter* parameter;
  int slice;
  int64_t offset;
  int64_t first, count;
};

// Gathers are started a group ahead of their use and freed after it; sums of gradients are started when a
// group's backward is over and go on behind the next ones. A step is
//
// BeginStep; the decoder's forwards and backwards, which may interleave; Finish; the optimizer over slices();
// StartPublish, which goes on behind the next forward.
//
// Every call is made by all ranks of a stage in the same order; errors are the communicator's. One thread.
class ShardedParameters {
 public:
  // Collective. The decoder was made without flat tensors (DecoderOptions::allocate false) and outlives this,
  // which installs its hooks. RESOURCE_EXHAUSTED where the table says more than `memory_limit` bytes (0: no
  // limit); INVALID_ARGUMENT where the table does not fit the mesh. Values are undefined until SetWhole.
  // `shards`: deterministic mode, in which gradients are summed in the order of the tree over these; null
  // otherwise. `actions`: what a step does with the decoder, by which its memory is planned (memory.h); with
  // `shards` all of them.
  static absl::StatusOr<std::unique_ptr<ShardedParameters>> Create(
      runtime::Decoder& decoder, const Sharding& sharding, const MeshCommunicators& groups,
      int64_t memory_limit, const VirtualShards* shards = nullptr,
      absl::Span<const pipeline::Action> actions = {});
  ~ShardedParameters();

  // Group by group: `set` finds the values and masters of this group whole, and sets them; then this rank keeps its
  // pieces. The first error ends it.
  absl::Status SetWhole(const std::function<absl::Status(runtime::ParameterGroup&)>& set);

  // So many backwards follow.
  void BeginStep(int micro_batches);
  // In deterministic mode: what the decoder runs next is of this micro-batch, of those of BeginStep.
  void EnterMicroBatch(int micro_batch);
  // Before the decoder runs forward only.
  void BeginEvaluation();
  // Waits for everything under way, frees what is whole; the first error. After each step and evaluation, also after
  // an error.
  absl::Status Finish();
  // Starts to spread what the optimizer wrote, in the order of the next forward, each group of which waits
  // for its own values. Errors are those of that forward, or of Finish.
  void StartPublish();

  // What this rank updates: a slice for each bucket of parameters, perhaps empty, the same ones in the same order on
  // all ranks.
  const std::vector<runtime::OptimizerSlice>& slices() const { return slices_; }
  const std::vector<OwnedRun>& runs() const { return runs_; }
  // This rank's piece of the gradient of the embedding, or of the head's copy of it; complete after Finish. Undefined
  // where there is none.
  runtime::Tensor EmbeddingGradient(bool copy) const;
  // Adds the squares of the gradients that this rank counts: each element counts on one rank of the stage's, and not in
  // a copy of the embedding.
  // squares kF64 [1].
  void AddSquares(const runtime::Tensor& squares) const;
  // The same without rounding, and each element on another rank: the sum does not depend on who has which.
  void AddSquares(runtime::ExactSquares& squares) const;

  const ReplicaGroup& GroupOf(runtime::Placement placement) const;

  const StateMemory& plan() const { return plan_; }
  MemoryCounter& memory() { return memory_; }

 private:
  // Gradients on their way.
  struct Reduction {
    int group;
    ShardedBucket* bucket;
    bool last;  // of the step
    ShardedBucket::Sum sum;
    comm::Work work;
  };

  ShardedParameters(runtime::Decoder& decoder, const Sharding& sharding);
  void MakeBuckets(absl::Span<const pipeline::Action> actions);
  void ListSlices();
  void InstallHooks();

  absl::Status Apply(const GatherOrder::Actions& actions, int use);
  absl::Status BeforeForward(int group);
  absl::Status BeforeBackward(int group);
  absl::Status AfterBackward(int group);
  // Starts what can go on.
  void Advance();
  // Starts gathers, in their order, of which new values are there; waits for these up to those of group `use`.
  absl::Status StartGathers(int use);
  // Waits for the sums of these groups' whole gradients, and frees them.
  void EndGradients(const std::vector<int>& groups);

  runtime::Decoder& decoder_;
  const Sharding sharding_;
  std::vector<std::unique_ptr<ReplicaGroup>> replicas_;  // of each placement
  std::vector<std::unique_ptr<LeafOrder>> orders_;       // the same; in deterministic mode only
  MemoryCounter memory_;
  std::vector<std::vector<std::unique_ptr<ShardedBucket>>> buckets_;  // by group
  std::vector<runtime::OptimizerSlice> slices_;
  std::vector<OwnedRun> runs_;
  StateMemory plan_;
  GroupLayout layout_;
  GatherOrder order_;
  GradientOrder gradients_;
  // Of the step, by group: backwards that have begun, that are over, and that there will be.
  struct Backwards {
    int begun = 0, over = 0;
  };
  std::vector<Backwards> backwards_;
  int micro_batches_ = 0;
  std::deque<Reduction> reductions_;  // in the order in which they were started
  struct Gather {
    int group;
    ShardedBucket* bucket;
  };
  std::deque<Gather> gathers_;  // that new values have not come for
  absl::Status failed_;         // the first error since Finish
};

}  // namespace cohort::parallel
