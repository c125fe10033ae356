#include "parallel/reshard/sweep.h"

#include <functional>

namespace cohort::parallel {

using runtime::Piece;
using runtime::PieceRun;

void Sweep::Begin(absl::Span<const Holders* const> near, int own, int64_t row) {
  cursors_.clear();
  covering_.clear();
  changes_.clear();
  first_rows_.clear();
  first_rows_.reserve(near.size());
  for (const Holders* holders : near) {
    Cursor cursor{holders, holders->runs, 0, -1, 0};
    if (row > 0) {
      PieceRun run = holders->runs.front();
      run.count = std::min(run.count, row);  // a whole tensor is one run
      first_rows_.push_back(run);
      cursor.runs = absl::MakeSpan(&first_rows_.back(), 1);
      cursor.stride = run.count;
    }
    for (const ListedBundle& has : holders->lists) {
      if (has.list == own) cursor.own = has.index();
    }
    changes_.emplace_back(holders->begin(), cursors_.size());
    cursors_.push_back(cursor);
  }
  std::make_heap(changes_.begin(), changes_.end(), std::greater<>());
}

void Sweep::MoveTo(int64_t at) {
  while (!changes_.empty() && changes_.front().first <= at) {
    std::pop_heap(changes_.begin(), changes_.end(), std::greater<>());
    const size_t which = changes_.back().second;
    changes_.pop_back();
    Cursor& cursor = cursors_[which];
    const auto run =
        std::partition_point(cursor.runs.begin() + static_cast<std::ptrdiff_t>(cursor.run), cursor.runs.end(),
                             [&](const PieceRun& r) { return r.full + r.count <= at; });
    cursor.run = static_cast<size_t>(run - cursor.runs.begin());
    const auto place = std::lower_bound(covering_.begin(), covering_.end(), which);
    const bool covered = place != covering_.end() && *place == which;
    const bool covers = run != cursor.runs.end() && run->full <= at;
    if (covers && !covered) covering_.insert(place, which);
    if (!covers && covered) covering_.erase(place);
    if (run == cursor.runs.end()) continue;
    changes_.emplace_back(covers ? run->full + run->count : run->full, which);
    std::push_heap(changes_.begin(), changes_.end(), std::greater<>());
  }
}

Rows RowsOf(const Piece& piece, absl::Span<const Holders* const> near) {
  const auto dim = static_cast<size_t>(piece.dim);
  Rows rows;
  for (size_t i = 0; i < dim; ++i) rows.count *= piece.full[i];
  if (rows.count == 1 || piece.size() != piece.box_size()) return {};
  for (const Holders* holders : near) {
    const Piece other = holders->part().Nameless();
    if (!other.whole() && (other.dim != piece.dim || other.size() != other.box_size())) return {};
  }
  rows.elements = piece.full_size() / rows.count;
  return rows;
}

}  // namespace cohort::parallel
