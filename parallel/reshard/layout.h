// Layouts: which pieces of which tensors lie on which ranks, however they came there. Pure values.
#pragma once

#include <vector>

#include "absl/status/status.h"
#include "parallel/reshard/held_pieces.h"

namespace cohort::parallel {

// ranks[r]: what rank r holds. Two layouts that a plan leads between number the same ranks: all that have something
// before or after. Pieces may be held by several ranks; a rank may hold nothing.
struct Layout {
  std::vector<HeldPieces> ranks;
  int world() const { return static_cast<int>(ranks.size()); }
};

// INVALID_ARGUMENT where a piece contradicts itself, or a tensor has two shapes or types in these layouts.
absl::Status CheckLayouts(const Layout& before, const Layout& after);

}  // namespace cohort::parallel
