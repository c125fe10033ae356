#include "parallel/reshard/stretches.h"

#include <algorithm>
#include <functional>
#include <map>
#include <utility>
#include <vector>

namespace cohort::parallel {
namespace {

using runtime::PieceRun;

// Which of some pieces have the element that a sweep over their tensor has come to. Of many pieces few change between two
// elements: those that do are in a heap, by where.
class Sweep {
 public:
  // From the beginning of another tensor. `own`: pieces of that list are marked.
  void Begin(const std::vector<const Holders*>& near, int own) {
    cursors_.clear();
    covering_.clear();
    changes_.clear();
    for (const Holders* holders : near) {
      Cursor cursor{holders, 0, -1};
      for (const auto& [list, index] : holders->lists) {
        if (list == own) cursor.own = index;
      }
      changes_.emplace_back(holders->begin(), cursors_.size());
      cursors_.push_back(cursor);
    }
    std::make_heap(changes_.begin(), changes_.end(), std::greater<>());
  }

  // Onwards only.
  void MoveTo(int64_t at) {
    while (!changes_.empty() && changes_.front().first <= at) {
      std::pop_heap(changes_.begin(), changes_.end(), std::greater<>());
      const size_t which = changes_.back().second;
      changes_.pop_back();
      Cursor& cursor = cursors_[which];
      const auto& runs = cursor.holders->runs;
      const auto run =
          std::partition_point(runs.begin() + static_cast<std::ptrdiff_t>(cursor.run), runs.end(),
                               [&](const PieceRun& r) { return r.full + r.count <= at; });
      cursor.run = static_cast<size_t>(run - runs.begin());
      const auto place = std::lower_bound(covering_.begin(), covering_.end(), which);
      const bool covered = place != covering_.end() && *place == which;
      const bool covers = run != runs.end() && run->full <= at;
      if (covers && !covered) covering_.insert(place, which);
      if (!covers && covered) covering_.erase(place);
      if (run == runs.end()) continue;
      changes_.emplace_back(covers ? run->full + run->count : run->full, which);
      std::push_heap(changes_.begin(), changes_.end(), std::greater<>());
    }
  }

  // Where that may change next, at most `end`.
  int64_t NextChange(int64_t end) const {
    return changes_.empty() ? end : std::min(end, changes_.front().first);
  }
  struct Cursor {
    const Holders* holders;
    size_t run;
    int own;  // the index of the rank's own piece among them, or -1

    int64_t OffsetOf(int64_t at) const { return holders->runs[run].offset + at - holders->runs[run].full; }
    int64_t end() const { return holders->runs[run].full + holders->runs[run].count; }
  };
  template <typename Visit>
  void ForCovering(const Visit& visit) const {
    for (const size_t which : covering_) visit(cursors_[which]);
  }

 private:
  std::vector<Cursor> cursors_;
  std::vector<size_t> covering_;  // ascending
  using Change = std::pair<int64_t, size_t>;
  std::vector<Change> changes_;  // a heap, the nearest first
};

// The last copy into the one before it, as one block more.
void Fold(std::vector<PieceCopy>& copies) {
  if (copies.size() < 2) return;
  PieceCopy& into = copies[copies.size() - 2];
  const PieceCopy& last = copies.back();
  if (last.blocks != 1 || last.count != into.count) return;
  const int64_t from_stride = last.from - (into.from + (into.blocks - 1) * into.from_stride);
  const int64_t to_stride = last.to - (into.to + (into.blocks - 1) * into.to_stride);
  if (from_stride < into.count || to_stride < into.count) return;
  if (into.blocks > 1 && (from_stride != into.from_stride || to_stride != into.to_stride)) return;
  into.from_stride = from_stride;
  into.to_stride = to_stride;
  ++into.blocks;
  copies.pop_back();
}

// The same for stretches: all sources must repeat as the piece does.
bool FoldInto(Stretch& into, const Stretch& last) {
  if (last.to_piece != into.to_piece || last.count != into.count ||
      last.sources.size() != into.sources.size())
    return false;
  const auto stride_of = [&](int64_t first, int64_t stride, int64_t now) {
    return now - (first + (into.blocks - 1) * stride);
  };
  const int64_t to_stride = stride_of(into.to, into.stride, last.to);
  if (to_stride < into.count || (into.blocks > 1 && to_stride != into.stride)) return false;
  for (size_t i = 0; i < into.sources.size(); ++i) {
    const StretchSource &a = into.sources[i], &b = last.sources[i];
    const int64_t stride = stride_of(a.from, a.stride, b.from);
    if (a.list != b.list || a.index != b.index || stride < into.count ||
        (into.blocks > 1 && stride != a.stride))
      return false;
  }
  for (size_t i = 0; i < into.sources.size(); ++i) {
    StretchSource& a = into.sources[i];
    a.stride = stride_of(a.from, a.stride, last.sources[i].from);
  }
  into.stride = to_stride;
  ++into.blocks;
  return true;
}

}  // namespace

void AddCopy(const PieceCopy& copy, std::vector<PieceCopy>& copies) {
  if (!copies.empty() && copy.blocks == 1) {
    PieceCopy& last = copies.back();
    const int64_t from_end = last.from + (last.blocks - 1) * last.from_stride + last.count;
    const int64_t to_end = last.to + (last.blocks - 1) * last.to_stride + last.count;
    if (copy.from == from_end && copy.to == to_end) {
      if (last.blocks == 1) {
        last.count += copy.count;
        Fold(copies);
        return;
      }
      // The last block grows out of the others' size: it begins a copy of its own.
      PieceCopy grown = copy;
      grown.from = from_end - last.count;
      grown.to = to_end - last.count;
      grown.count += last.count;
      if (--last.blocks == 1) last.from_stride = last.to_stride = 0;
      copies.push_back(grown);
      return;
    }
  }
  copies.push_back(copy);
  Fold(copies);
}

Needs NeedsOf(const PieceHolders& holders, int own, absl::Span<const HeldPiece> wanted) {
  Needs needs;
  std::map<int, std::vector<PieceCopy>> stays;  // of one new piece, by the old one
  std::vector<PieceRun> runs;
  std::vector<const Holders*> near;
  Sweep sweep;
  for (size_t i = 0; i < wanted.size(); ++i) {
    const auto to_piece = static_cast<int>(i);
    runs.clear();
    ForEachRun(wanted[i].piece, [&](const PieceRun& run) { runs.push_back(run); });
    holders.FindNear(wanted[i].piece, runs, near);
    sweep.Begin(near, own);
    for (const PieceRun& run : runs) {
      for (int64_t at = run.full, stop; at < run.full + run.count; at = stop) {
        const int64_t to = run.offset + at - run.full;
        sweep.MoveTo(at);
        stop = run.full + run.count;
        const Sweep::Cursor* mine = nullptr;
        sweep.ForCovering([&](const Sweep::Cursor& cursor) {
          if (cursor.own >= 0) mine = &cursor;
        });
        if (mine != nullptr) {
          stop = std::min(stop, mine->end());
          AddCopy({.from_piece = mine->own,
                   .to_piece = to_piece,
                   .from = mine->OffsetOf(at),
                   .to = to,
                   .count = stop - at},
                  stays[mine->own]);
          continue;
        }
        stop = sweep.NextChange(stop);
        Stretch stretch{.to_piece = to_piece, .to = to, .count = stop - at, .sources = {}};
        sweep.ForCovering([&](const Sweep::Cursor& cursor) {
          for (const auto& [list, index] : cursor.holders->lists)
            stretch.sources.push_back({.list = list, .index = index, .from = cursor.OffsetOf(at)});
        });
        if (stretch.sources.empty()) {
          needs.missing = {to_piece, at};
          return needs;
        }
        if (needs.comes.empty() || !FoldInto(needs.comes.back(), stretch))
          needs.comes.push_back(std::move(stretch));
      }
    }
    for (auto& [from_piece, copies] : stays)
      needs.stays.insert(needs.stays.end(), copies.begin(), copies.end());
    stays.clear();
  }
  return needs;
}

}  // namespace cohort::parallel
