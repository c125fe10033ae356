// Layouts: which pieces of which tensors lie on which ranks, however they came there. Pure values.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "comm/data_type.h"
#include "runtime/model/piece.h"

namespace cohort::parallel {

// One tensor of state: values, or "<name>/master" and the like, which are tensors of their own.
struct HeldPiece {
  runtime::Piece piece;
  DataType dtype = DataType::kF32;
  int64_t bytes() const { return piece.size() * static_cast<int64_t>(SizeOf(dtype)); }
};

// ranks[r]: what rank r holds. Two layouts that a plan leads between number the same ranks: all that have something
// before or after. Pieces may be held by several ranks; a rank may hold nothing.
struct Layout {
  std::vector<std::vector<HeldPiece>> ranks;
  int world() const { return static_cast<int>(ranks.size()); }
};

// INVALID_ARGUMENT where a piece contradicts itself, or a tensor has two shapes or types in these layouts.
absl::Status CheckLayouts(const Layout& before, const Layout& after);

}  // namespace cohort::parallel
