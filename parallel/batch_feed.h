// Which micro-batches a rank computes, and their tokens.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "parallel/batch_parts.h"
#include "parallel/batch_source.h"
#include "parallel/determinism/virtual_shards.h"
#include "parallel/mesh_communicators.h"
#include "parallel/sequence/hybrid_batches.h"

namespace cohort::parallel {

// Sequences spread as they need (hybrid_batches.h), over the ranks of the batch axes.
struct HybridOptions {
  int64_t tokens = 0;  // that a rank holds at a time
  int fixed_ranks =
      0;  // that every sequence is spread over, in their order: a static mesh. 0: as many as each needs
};

struct FeedOptions {
  int64_t global_batch = 1;
  int64_t micro_batch = 0;
  std::optional<VirtualShards> shards = std::nullopt;  // of the global batch, in deterministic mode
  std::optional<HybridOptions> hybrid = std::nullopt;
  std::optional<SplitRule> split_batch = std::nullopt;  // halves of the batches of tensor groups
  HybridCosts costs = {};                               // of hybrid batches; the same on all ranks
  // All ranks make equally many micro-batches, in step: where they exchange something in each.
  bool in_step = true;
};

struct MicroBatch {
  runtime::TokenBatch tokens;  // this rank's part
  // Predicted tokens, and bytes of their text. Each counts on one rank of a pipeline stage.
  int64_t predicted = 0, bytes = 0;
};

// Without hybrid options each rank of the batch axes takes a run of sample indices, in micro-batches of so many
// sequences, and all make equally many, some perhaps empty. With them a plan says which; a rank that it gives nothing
// makes an empty one. One thread; every call is made by all ranks of the world.
class BatchFeed {
 public:
  // All but `device` and `groups`, which outlive this, are taken over.
  BatchFeed(const MeshCommunicators& groups, const FeedOptions& options, const ContextOptions& context,
            std::unique_ptr<BatchSource> source, runtime::Device& device);

  int64_t held_out() const { return source_->held_out(); }
  // Of each training step; 0: hybrid batches differ from step to step.
  int micro_batches() const {
    return options_.hybrid ? 0 : static_cast<int>(PlanRuns(options_.global_batch, options_.shards).size());
  }

  // This rank's micro-batches of a step. An error where any rank had one.
  absl::StatusOr<std::vector<MicroBatch>> Training(int64_t step);

  // This rank's micro-batches of the first `sequences` held-out samples, as many on all ranks. An error where any rank
  // had one.
  absl::StatusOr<std::vector<HybridMicroBatch>> PlanHeldOut(int64_t sequences);
  absl::StatusOr<MicroBatch> HeldOut(const HybridMicroBatch& planned);

 private:
  // Of `sequences` samples; without hybrid options first_rank and ranks mean nothing. step: none for held-out ones.
  absl::StatusOr<std::vector<HybridMicroBatch>> Plan(int64_t sequences, std::optional<int64_t> step,
                                                     bool in_step);
  std::vector<HybridMicroBatch> PlanRuns(int64_t sequences, const std::optional<VirtualShards>& shards) const;
  absl::StatusOr<MicroBatch> Fetch(const HybridMicroBatch& planned, std::optional<int64_t> step);
  absl::Status Agree(const absl::Status& status) const;

  const MeshCommunicators& groups_;
  const FeedOptions options_;
  const BatchParts parts_;
  const std::unique_ptr<BatchSource> source_;
  runtime::Device& device_;
};

}  // namespace cohort::parallel
