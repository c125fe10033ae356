#include "parallel/reshard/stretches.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "parallel/reshard/sweep.h"

namespace cohort::parallel {
namespace {

using runtime::Piece;
using runtime::PieceRun;

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

// So many rows, each of them the same.
void Repeat(int64_t rows, PieceCopy& copy, int64_t from_stride, int64_t to_stride) {
  if (from_stride == copy.count && to_stride == copy.count) {
    copy.count *= rows;
    return;
  }
  copy.blocks = rows;
  copy.from_stride = from_stride;
  copy.to_stride = to_stride;
}
void Repeat(int64_t rows, Stretch& stretch, int64_t to_stride) {
  bool together = to_stride == stretch.count;
  for (const StretchSource& source : stretch.sources) together = together && source.stride == stretch.count;
  if (together) {
    stretch.count *= rows;
    return;
  }
  stretch.blocks = rows;
  stretch.stride = to_stride;
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

Needs NeedsOf(const PieceHolders& holders, int own, const HeldPieces& wanted, const Bundles& bundles) {
  Needs needs;
  std::vector<std::pair<int, std::vector<PieceCopy>>>
      stays;  // of one new piece, by old ones, of which there are few
  std::vector<PieceRun> runs;
  std::vector<const Holders*> near;
  Sweep sweep;
  for (const HeldBundle& bundle : bundles.of(wanted)) {
    if (bundle.empty()) continue;
    const Piece piece = bundle.Nameless();
    holders.FindNear(bundles.number_of(bundle), piece, near);
    const Rows rows = RowsOf(piece, near);
    sweep.Begin(near, own, rows.elements);
    runs.clear();
    if (rows.count == 1) {
      ForEachRun(piece, [&](const PieceRun& run) { runs.push_back(run); });
    } else {
      const int64_t inner = rows.elements / piece.full[static_cast<size_t>(piece.dim)];
      runs.push_back({piece.begin * inner, 0, (piece.end - piece.begin) * inner});
    }
    const int64_t row = runs.front().count;
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
          PieceCopy copy{.from_piece = mine->own,
                         .to_piece = bundle.first_piece,
                         .from = mine->OffsetOf(at),
                         .to = to,
                         .count = stop - at};
          if (rows.count > 1) Repeat(rows.count, copy, mine->stride, row);
          auto from = std::find_if(stays.begin(), stays.end(),
                                   [&](const auto& one) { return one.first == mine->own; });
          if (from == stays.end()) from = stays.insert(from, {mine->own, {}});
          AddCopy(copy, from->second);
          continue;
        }
        stop = sweep.NextChange(stop);
        Stretch stretch{.to_piece = bundle.first_piece, .to = to, .count = stop - at, .sources = {}};
        sweep.ForCovering([&](const Sweep::Cursor& cursor) {
          for (const ListedBundle& has : cursor.holders->lists) {
            stretch.sources.push_back({.list = has.list,
                                       .index = has.index(),
                                       .from = cursor.OffsetOf(at),
                                       .stride = cursor.stride});
          }
        });
        if (stretch.sources.empty()) {
          needs.missing = {bundle.first_piece, at};
          return needs;
        }
        if (rows.count > 1) {
          Repeat(rows.count, stretch, row);
          needs.comes.push_back(std::move(stretch));
        } else if (needs.comes.empty() || !FoldInto(needs.comes.back(), stretch)) {
          needs.comes.push_back(std::move(stretch));
        }
      }
    }
    std::sort(stays.begin(), stays.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    for (const auto& [from_piece, copies] : stays)
      needs.stays.insert(needs.stays.end(), copies.begin(), copies.end());
    stays.clear();
  }
  return needs;
}

}  // namespace cohort::parallel
