// Pieces: what part of a whole (Hugging Face) tensor lies somewhere. Checkpoints, export, import and reshard plans
// speak of nothing else, so that none of them knows which way of spreading a model put it there. Pure values.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/types/span.h"
#include "runtime/tensor.h"

namespace cohort::runtime {

// A flat range of a box of a whole tensor. The box: indices [begin, end) along dimension `dim`, all along the others
// (what tensor and expert axes leave on a rank); of its elements in row-major order those in [first, last) (what
// sharding of flat buckets leaves of that). Offsets and sizes are elements.
struct Piece {
  std::string name;  // the tensor's, as on disk
  Shape full;        // of the whole tensor; a scalar has none
  int dim = 0;
  int64_t begin = 0, end = 0;
  int64_t first = 0, last = 0;

  static Piece Whole(std::string name, Shape full);
  static Piece Box(std::string name, Shape full, int dim, int64_t begin, int64_t end);
  // Elements [from, to) of this piece.
  Piece Range(int64_t from, int64_t to) const;

  int64_t size() const { return last - first; }
  bool empty() const { return last == first; }
  // Of the box.
  Shape box() const;
  int64_t box_size() const;
  int64_t full_size() const;
  // Whether it is the whole tensor.
  bool whole() const { return size() == full_size(); }

  bool operator==(const Piece&) const = default;
  // "w [4,6], dim 1: [2,4), elements [0,5)", without what is whole.
  std::string DebugString() const;
};

// INVALID_ARGUMENT where the numbers contradict each other, for pieces that come from elsewhere.
absl::Status CheckPiece(const Piece& piece);

// A run: elements that lie together both in the whole tensor (row-major, from `full`) and in the piece (from `offset`).
struct PieceRun {
  int64_t full = 0, offset = 0, count = 0;
  bool operator==(const PieceRun&) const = default;
};

// The runs of a piece, ascending in both, as long as they can be; none where it is empty.
void ForEachRun(const Piece& piece, absl::FunctionRef<void(const PieceRun&)> visit);
std::vector<PieceRun> RunsOf(const Piece& piece);

// What two pieces of one tensor have in common, ascending: elements [a, a + count) of the first are [b, b + count) of
// the second.
void ForEachOverlap(const Piece& first, const Piece& second,
                    absl::FunctionRef<void(int64_t a, int64_t b, int64_t count)> visit);

// Whether pieces of one tensor (at least one) cover each element exactly once. FAILED_PRECONDITION says which elements
// are in none or in two, and in which (by index).
absl::Status CheckCover(absl::Span<const Piece> pieces);

}  // namespace cohort::runtime
