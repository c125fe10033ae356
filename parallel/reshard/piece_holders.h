// Who holds what in a layout: looked at once for all ranks that hold the same. Behind reshard_plan.h.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "absl/types/span.h"
#include "parallel/reshard/bundles.h"
#include "parallel/reshard/layout.h"

namespace cohort::parallel {

// A part of a bundle of tensors in a list.
struct ListedBundle {
  const HeldBundle* bundle = nullptr;  // in the layout
  int list = 0;

  int index() const { return bundle->first_piece; }
};

// A part that is not empty, and the lists in which it is.
struct Holders {
  absl::Span<const ListedBundle> lists;
  absl::InlinedVector<runtime::PieceRun, 1> runs;

  const HeldBundle& part() const { return *lists.front().bundle; }
  // In the whole tensor.
  int64_t begin() const { return runs.front().full; }
  int64_t end() const { return runs.back().full + runs.back().count; }
};

class PieceHolders {
 public:
  // Without the ranks that are lost. `layout` outlives it.
  PieceHolders(const Layout& layout, const std::vector<bool>& lost, const Bundles& bundles);

  // The list of a rank, from 0 on; -1: it holds nothing, or is lost.
  int list_of(int rank) const { return list_of_[static_cast<size_t>(rank)]; }
  int lists() const { return static_cast<int>(ranks_.size()); }
  // Who has that list, ascending.
  absl::Span<const int> ranks_of(int list) const { return ranks_[static_cast<size_t>(list)]; }

  // Replaces `near` by those that may have some of a piece, which is not empty, of the tensors of that number: in the order
  // of where they begin.
  void FindNear(int number, const runtime::Piece& piece, std::vector<const Holders*>& near) const;

 private:
  // Equal parts of one bundle of tensors together, and in the order of where they begin.
  void Gather(absl::Span<ListedBundle> listed);

  std::vector<int> list_of_;
  std::vector<std::vector<int>> ranks_;
  std::vector<ListedBundle> listed_;  // by tensors, then as Gather orders them
  // By tensors, by where they begin: of many ranks each has a little of every tensor, and few have some of a piece.
  std::vector<Holders> holders_;
  std::vector<int64_t> furthest_;     // the end of these and of all before them of the same tensors
  std::vector<size_t> first_holder_;  // by number of the tensors, and the end
};

}  // namespace cohort::parallel
