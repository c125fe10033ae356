// What a rank that holds one list of pieces lacks of another, and which lists have it. Pure. Behind reshard_plan.h.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "parallel/reshard/bundles.h"
#include "parallel/reshard/piece_holders.h"
#include "parallel/reshard/reshard_plan.h"

namespace cohort::parallel {

// Who has a stretch: in piece `index` of that list, from element `from` on.
struct StretchSource {
  int list = 0, index = 0;
  int64_t from = 0, stride = 0;  // of its blocks
};

// `blocks` times `count` elements of a new piece that the same lists have.
struct Stretch {
  int to_piece = 0;
  int64_t to = 0, stride = 0;
  int64_t count = 0, blocks = 1;
  absl::InlinedVector<StretchSource, 1> sources;  // at least one
};

struct Needs {
  // Sources and destinations are still to be filled in; in the order of (to_piece, from_piece).
  std::vector<PieceCopy> stays;
  std::vector<Stretch> comes;  // in the order of to_piece
  // Where nobody has it: the first such element.
  struct Missing {
    int to_piece = 0;
    int64_t element = 0;
  };
  std::optional<Missing> missing;
};

// Of a rank that has list `own` (-1: none) and is to have `wanted`: of the first piece of each bundle.
Needs NeedsOf(const PieceHolders& holders, int own, const HeldPieces& wanted, const Bundles& bundles);

// Adds a copy to those of the same pieces and ranks: joined with the last one where they lie together, or repeat at an
// equal distance.
void AddCopy(const PieceCopy& copy, std::vector<PieceCopy>& copies);

}  // namespace cohort::parallel
