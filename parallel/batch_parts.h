// Which part of a batch a rank computes, where context, hybrid or tensor groups share its sequences.
#pragma once

#include <memory>
#include <optional>

#include "absl/status/statusor.h"
#include "parallel/mesh_communicators.h"
#include "parallel/sequence/context_attention.h"
#include "parallel/sequence/hybrid_batches.h"
#include "parallel/tensor/split_batch.h"
#include "runtime/model/batch.h"

namespace cohort::parallel {

struct ContextOptions {
  SplitKind split = SplitKind::kZigzag;  // who holds which tokens
  ContextWays ways = {};                 // who sends what to whom
};

// Of batches of whole sequences, which all ranks that share them have alike. Makes no message; the batches do, when a
// model computes on them. split: where there is a tensor group, batches are cut in two halves.
class BatchParts {
 public:
  BatchParts(const MeshCommunicators& groups, const ContextOptions& context, std::optional<SplitRule> split,
             runtime::Device& device)
      : groups_(groups), context_(context), split_(split), device_(device) {}

  // This rank's tokens of the context group's, and who computes their attention; all tokens of the tensor
  // group's.
  absl::StatusOr<runtime::TokenBatch> Of(const runtime::TokenBatch& whole) const;
  // The same of sequences that batch.ranks neighbours along the batch axes share, of which this rank is one. Groups that
  // the context's head_parts do not divide exchange no heads.
  absl::StatusOr<runtime::TokenBatch> Of(const runtime::TokenBatch& whole,
                                         const HybridMicroBatch& batch) const;
  // Whether this rank counts what the ranks with parts of the same sequences have alike.
  bool counts() const { return groups_.sequences->rank() == 0; }

 private:
  // This rank's tokens of the context group's.
  absl::StatusOr<runtime::TokenBatch> OfContext(const runtime::TokenBatch& whole) const;

  const MeshCommunicators& groups_;  // outlives this
  const ContextOptions context_;
  const std::optional<SplitRule> split_;
  runtime::Device& device_;
};

}  // namespace cohort::parallel
