// Who holds what in a layout: looked at once for all ranks that hold the same. Behind reshard_plan.h.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/inlined_vector.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "parallel/reshard/bundles.h"
#include "parallel/reshard/layout.h"

namespace cohort::parallel {

// A piece that is not empty, and the lists in which it is.
struct Holders {
  const runtime::Piece* piece = nullptr;  // in the layout
  absl::InlinedVector<runtime::PieceRun, 1> runs;
  absl::InlinedVector<std::pair<int, int>, 1> lists;  // (list, index in it)

  // In the whole tensor.
  int64_t begin() const { return runs.front().full; }
  int64_t end() const { return runs.back().full + runs.back().count; }
};

class PieceHolders {
 public:
  // Without the ranks that are lost; of each bundle the first piece. `layout` outlives it.
  PieceHolders(const Layout& layout, const std::vector<bool>& lost, const Bundles& bundles);

  // The list of a rank, from 0 on; -1: it holds nothing, or is lost.
  int list_of(int rank) const { return list_of_[static_cast<size_t>(rank)]; }
  int lists() const { return static_cast<int>(ranks_.size()); }
  // Who has that list, ascending.
  absl::Span<const int> ranks_of(int list) const { return ranks_[static_cast<size_t>(list)]; }

  // Replaces `near` by those that may have some of a piece that is not empty, in the order of where they begin.
  void FindNear(const runtime::Piece& piece, std::vector<const Holders*>& near) const;

 private:
  // Of a tensor, by where they begin: of many ranks each has a little of every tensor, and few have some of a piece.
  struct Tensor {
    std::vector<Holders> holders;
    std::vector<int64_t> furthest;  // the end of these and of all before them
  };

  std::vector<int> list_of_;
  std::vector<std::vector<int>> ranks_;
  absl::flat_hash_map<absl::string_view, Tensor> tensors_;
};

}  // namespace cohort::parallel
