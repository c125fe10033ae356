// A training that goes on elsewhere: its state moves from the ranks of one mesh to those of another, without a disk.
//
//   before = TrainingLayout(config, old arrangement, old mesh)      who held what
//   after  = TrainingLayout(config, new arrangement, new mesh)      who is to hold what
//   move   = PlanMove(before, after, who is who, hosts)             what has to travel; pure
//   MoveTraining(resharder, move, offer, new part, timeout)         collective over all who hold something
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "parallel/reshard/reshard_plan.h"
#include "parallel/reshard/resharder.h"
#include "parallel/reshard/training_layout.h"

namespace cohort::parallel {

// Who is who among the ranks of the communicator in which state moves: all that have something and all that are to hold
// something. before[r]: the numbers in the old mesh whose state rank r has: its own, or also those of others that are
// lost, from snapshots. after[r]: its number in the new mesh; -1: it is in none. Numbers of the old mesh that nobody has
// are lost.
struct Members {
  std::vector<std::vector<int>> before;
  std::vector<int> after;
};

// In the numbers of that communicator, and lost ranks after them.
struct Move {
  Layout before, after;
  ReshardOptions options;
  ReshardPlan plan;

  ReshardTotals totals() const { return TotalsOf(after, options, plan); }
};

// `before` and `after` are numbered by the old and the new mesh. host_of: of the communicator's ranks; empty: all on
// one. Several ranks may have the state of the same number. INVALID_ARGUMENT where members and layouts do not fit
// together; NOT_FOUND where lost ranks had something that
// nobody else has: it has to come from a checkpoint.
absl::StatusOr<Move> PlanMove(const Layout& before, const Layout& after, const Members& members,
                              std::vector<int> host_of);

// What a rank has of the state of the old mesh: that of its numbers, one after another, each as the layout lists it.
struct Offer {
  int64_t step = 0;  // of the training; the same on all ranks that offer something
  HeldState state;
};

// One rank's part of a training.
struct TrainingPart {
  runtime::Trainable* trainable = nullptr;  // null: none
  runtime::OptimizerState* optimizer = nullptr;
};
// What the part of a training that runs offers.
Offer OfferOf(const TrainingPart& part);

// After masters have changed: values that are not the masters themselves are these, rounded.
void SetValues(runtime::Trainable& trainable);

// Collective over the resharder's communicator: pieces, however they came there. FAILED_PRECONDITION where a rank holds
// something else than the layouts say, else as Resharder::Run.
absl::Status MoveState(Resharder& resharder, const Move& move, const HeldState& from, const HeldState& to,
                       absl::Duration timeout);

// Collective over the resharder's communicator. Afterwards `to` has the state and the step of the training, ready for
// the next step, bit for bit; what `from` lies in is what it was, and nobody needs it. Both are in memory meanwhile.
// After an error, which is one on every rank, `to` is undefined, and `from` is what it was. FAILED_PRECONDITION where a
// part holds something else than the layouts say; else as Resharder::Run.
absl::Status MoveTraining(Resharder& resharder, const Move& move, const Offer& from, TrainingPart to,
                          absl::Duration timeout);

}  // namespace cohort::parallel
