// Whether the ranks that hold the same state hold the same bits, and what is done where they do not.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "comm/communicator.h"
#include "parallel/parallel_model.h"
#include "parallel/reshard/layout.h"
#include "runtime/optim/optimizer.h"

namespace cohort::parallel {

// The sum of the bytes of each piece that a rank holds, in the order of the layout.
using PieceSums = std::vector<uint64_t>;

struct WrongPiece {
  int rank = 0;
  int piece = 0;  // in the layout's list of that rank
  // Of the ranks that hold it, more have other bytes, which agree; else there is no telling who is right, and the lowest
  // rank counts.
  bool outvoted = true;
};

// Pieces that equal ones of other ranks should have the bytes of and do not: of each set of equal pieces, all but those
// with the sum that most have. Pure. `sums` by rank.
std::vector<WrongPiece> FindWrongPieces(const Layout& layout, absl::Span<const PieceSums> sums);

struct StateCheck {
  std::vector<WrongPiece> wrong;
  int64_t repaired_bytes = 0;
  std::string words;  // who differed in what; empty: nobody
};

// Collective over `group`, the model's ranks, between two steps. Ranks that differ get the right bytes from those that
// have them. `layout` is what they hold (LayoutOf).
absl::StatusOr<StateCheck> CheckState(comm::Communicator& group, const Layout& layout, ParallelModel& model,
                                      runtime::OptimizerState& optimizer, absl::Duration timeout);

}  // namespace cohort::parallel
