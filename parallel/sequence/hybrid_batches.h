// Hybrid data parallelism for sequences of mixed lengths (ByteScale: Ge et al., 2025): data and context ranks are one row,
// of which each sequence takes as many neighbours as it needs. A long one is divided over them; short ones are packed
// whole, and communicate nothing. Gradients are added up once a step, so ranks need not make equally many micro-batches.
// A pure value; no communication.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "parallel/sequence/token_split.h"
#include "runtime/model/batch.h"

namespace cohort::parallel {

// Seconds of forward and backward together.
struct HybridCosts {
  double token = 1;  // what is linear in tokens: matrices, norms
  double pair = 0;   // attention: a query and a key that it sees
  // Sending a token's keys and values (and their gradients) to the next rank of a ring: on another host, on the same one.
  double moved_token = 0;
  double micro_batch = 0;  // what each costs besides
  double near_token = 0;
  int host_ranks = 1;  // so many neighbours are on one host
};

// Of `ranks` neighbours that hold these sequences evenly: what moves is hidden behind attention as far as that goes.
double GroupSeconds(const HybridCosts& costs, absl::Span<const int64_t> lengths, int first_rank, int ranks);

// Sequences that neighbouring ranks compute together, evenly split; by one rank where ranks == 1.
struct HybridMicroBatch {
  int first_rank = 0, ranks = 1;
  std::vector<int64_t> sequences;  // ascending indices into the global batch
};

// One step of all ranks. A rank makes those micro-batches that it is in, in this order: an order that all share, so that
// no group ever waits in a circle.
struct HybridPlan {
  int ranks = 1;
  int64_t budget = 0;  // tokens that a rank holds at a time
  std::vector<HybridMicroBatch> micro_batches;
  // Indices of those of one rank.
  std::vector<int> Of(int rank) const;
  // How a micro-batch's tokens lie on its group.
  absl::StatusOr<TokenSplit> Split(int micro_batch, SplitKind kind, absl::Span<const int64_t> lengths) const;
};

// For whoever must make equally many micro-batches on all ranks, in step with each other: what each rank makes in each
// round, an index into plan.micro_batches or -1: nothing. Equally long lists; the ranks of a micro-batch make it in the
// same round.
std::vector<std::vector<int>> RoundsOf(const HybridPlan& plan);

// A sequence of s tokens takes ceil(s / budget) ranks, or more where it would take longer than the mean rank needs for
// everything; the plan whose simulated step is shortest counts. INVALID_ARGUMENT where a sequence fits all ranks
// together not.
absl::StatusOr<HybridPlan> PlanHybridBatches(absl::Span<const int64_t> lengths, int ranks, int64_t budget,
                                             const HybridCosts& costs);

// What a mesh of fixed context groups does: sequences in their order, packed into micro-batches of context x budget tokens,
// which the groups take in turn; all tokens are split over the group.
absl::StatusOr<HybridPlan> PlanStaticBatches(absl::Span<const int64_t> lengths, int ranks, int context,
                                             int64_t budget);
// The smallest context group that divides the ranks and holds the longest sequence; RESOURCE_EXHAUSTED where none does.
absl::StatusOr<int> StaticContext(absl::Span<const int64_t> lengths, int ranks, int64_t budget);

// Every sequence is in one micro-batch; groups are neighbours that exist; no rank holds more than its budget; every
// rank gets to its end. INTERNAL names what is wrong.
absl::Status CheckHybridPlan(const HybridPlan& plan, absl::Span<const int64_t> lengths);

struct HybridTime {
  double seconds = 0;  // until the last rank is done
  double busy = 0;     // the mean of ranks
  int64_t moved = 0;   // tokens of sequences that are split: what communicates at all
};
HybridTime SimulateHybrid(const HybridPlan& plan, absl::Span<const int64_t> lengths,
                          const HybridCosts& costs);

// The exact token-weighted mean: every micro-batch divides what it adds up by these counts of the whole step, however
// sequences are packed or split. predicted[s]: targets of sequence s that count.
runtime::LossScale LossScaleOf(absl::Span<const int64_t> predicted);

}  // namespace cohort::parallel
