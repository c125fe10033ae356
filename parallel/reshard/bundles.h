// Tensors that lie alike on every rank, as a parameter's master and moments do: planned once for all of them. Behind
// reshard_plan.h.
#pragma once

#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "parallel/reshard/layout.h"

namespace cohort::parallel {

// What two layouts have as one, and by which number a plan knows it.
class Bundles {
 public:
  // Of all lists of both layouts, which outlive it. A tensor is everywhere at the same place of the same bundle: where
  // layouts differ in that, every piece is a bundle of its own.
  Bundles(const Layout& before, const Layout& after);

  const std::vector<HeldBundle>& of(const HeldPieces& pieces) const {
    return alone_.empty() ? pieces.bundles() : alone_.at(pieces.identity()).bundles();
  }
  // Bundles of tensors are numbered from 0 on: equal for those of the same names.
  int number_of(const HeldBundle& bundle) const { return number_of_.at(bundle.tensors); }
  int count() const { return static_cast<int>(by_name_.size()); }

 private:
  // False where they have a number already.
  bool Number(const TensorBundle& tensors);

  absl::flat_hash_map<const TensorBundle*, int> number_of_;
  absl::flat_hash_map<absl::string_view, int> by_name_;
  absl::flat_hash_map<const void*, HeldPieces> alone_;  // by list; empty where layouts agree
};

}  // namespace cohort::parallel
