// Tensors that lie alike on every rank, as a parameter's master and moments do: planned once for all of them. Behind
// reshard_plan.h.
#pragma once

#include <vector>

#include "absl/container/flat_hash_map.h"
#include "parallel/reshard/layout.h"

namespace cohort::parallel {

// `size` pieces of a list from `first` on: the same part of tensors of one shape and type, "<name>/<kind>".
struct Bundle {
  int first = 0, size = 1;
};

class Bundles {
 public:
  // Of all lists of both layouts, which outlive it. A tensor is everywhere at the same place of the same bundle: where
  // layouts differ in that, every piece is a bundle of its own.
  Bundles(const Layout& before, const Layout& after);

  const std::vector<Bundle>& of(const HeldPieces& pieces) const { return of_.at(pieces.identity()); }

 private:
  absl::flat_hash_map<const void*, std::vector<Bundle>> of_;
};

}  // namespace cohort::parallel
