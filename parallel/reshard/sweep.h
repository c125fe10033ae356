// Which of some pieces have the element that a sweep over their tensor has come to. Behind reshard_plan.h.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "parallel/reshard/piece_holders.h"

namespace cohort::parallel {

// Of many pieces few change between two elements: those that do are in a heap, by where.
class Sweep {
 public:
  struct Cursor {
    const Holders* holders;
    absl::Span<const runtime::PieceRun> runs;
    size_t run;
    int own;         // the index of the rank's own piece among them, or -1
    int64_t stride;  // from one row of the piece to the next, where only the first row is swept

    int64_t OffsetOf(int64_t at) const { return runs[run].offset + at - runs[run].full; }
    int64_t end() const { return runs[run].full + runs[run].count; }
  };

  // From the beginning of another tensor. `own`: pieces of that list are marked. `row`: elements of a row; where it is
  // not 0, all pieces are the same part of every row (Rows), and only the first row is swept.
  void Begin(absl::Span<const Holders* const> near, int own, int64_t row);
  // Onwards only.
  void MoveTo(int64_t at);
  // Where that may change next, at most `end`.
  int64_t NextChange(int64_t end) const {
    return changes_.empty() ? end : std::min(end, changes_.front().first);
  }
  template <typename Visit>
  void ForCovering(const Visit& visit) const {
    for (const size_t which : covering_) visit(cursors_[which]);
  }

 private:
  std::vector<Cursor> cursors_;
  std::vector<runtime::PieceRun> first_rows_;
  std::vector<size_t> covering_;  // ascending
  using Change = std::pair<int64_t, size_t>;
  std::vector<Change> changes_;  // a heap, the nearest first
};

// Rows in which a piece and all that are near it repeat themselves: boxes along one dimension, whole. count: 1 where they
// do not.
struct Rows {
  int64_t count = 1, elements = 0;
};
Rows RowsOf(const runtime::Piece& piece, absl::Span<const Holders* const> near);

}  // namespace cohort::parallel
