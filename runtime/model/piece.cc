#include "runtime/model/piece.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "comm/check.h"

namespace cohort::runtime {
namespace {

int64_t Product(const Shape& shape, size_t begin, size_t end) {
  int64_t product = 1;
  for (size_t i = begin; i < end; ++i) product *= shape[i];
  return product;
}

// The runs of a piece one by one. In the whole tensor a box is `outer` stretches of `run` elements, `stride` apart.
class RunCursor {
 public:
  explicit RunCursor(const Piece& piece) : piece_(piece), at_(piece.first) {
    const auto dim = static_cast<size_t>(piece.dim);
    const int64_t inner = piece.full.empty() ? 1 : Product(piece.full, dim + 1, piece.full.size());
    run_ = (piece.end - piece.begin) * inner;
    stride_ = piece.full.empty() ? 1 : piece.full[dim] * inner;
    start_ = piece.begin * inner;
    if (run_ == stride_ || piece.full.empty() || Product(piece.full, 0, dim) == 1) run_ = piece.box_size();
  }

  bool Next(PieceRun* run) {
    if (at_ >= piece_.last) return false;
    const int64_t row = at_ / run_, within = at_ % run_;
    run->full = row * stride_ + start_ + within;
    run->offset = at_ - piece_.first;
    run->count = std::min(run_ - within, piece_.last - at_);
    at_ += run->count;
    return true;
  }

 private:
  const Piece& piece_;
  int64_t run_, stride_, start_, at_;
};

}  // namespace

Piece Piece::Whole(std::string name, Shape full) {
  const int64_t end = full.empty() ? 1 : full[0];
  return Box(std::move(name), std::move(full), 0, 0, end);
}

Piece Piece::Box(std::string name, Shape full, int dim, int64_t begin, int64_t end) {
  Piece piece;
  piece.name = std::move(name);
  piece.full = std::move(full);
  piece.dim = dim;
  piece.begin = begin;
  piece.end = end;
  piece.last = piece.box_size();
  return piece;
}

Piece Piece::Range(int64_t from, int64_t to) const {
  COHORT_CHECK(0 <= from && from <= to && to <= size(), "elements [%lld, %lld) of %s",
               static_cast<long long>(from), static_cast<long long>(to), DebugString().c_str());
  Piece piece = *this;
  piece.first = first + from;
  piece.last = first + to;
  return piece;
}

Shape Piece::box() const {
  Shape shape = full;
  if (!shape.empty()) shape[static_cast<size_t>(dim)] = end - begin;
  return shape;
}

int64_t Piece::box_size() const {
  const Shape shape = box();
  return Product(shape, 0, shape.size());
}

int64_t Piece::full_size() const { return Product(full, 0, full.size()); }

std::string Piece::DebugString() const {
  std::string text = absl::StrCat(name, " [", absl::StrJoin(full, ","), "]");
  if (box_size() != full_size()) absl::StrAppend(&text, ", dim ", dim, ": [", begin, ",", end, ")");
  if (size() != box_size()) absl::StrAppend(&text, ", elements [", first, ",", last, ")");
  return text;
}

absl::Status CheckPiece(const Piece& piece) {
  const auto error = [&](auto&&... parts) {
    return absl::InvalidArgumentError(absl::StrCat("a piece of tensor '", piece.name, "' [",
                                                   absl::StrJoin(piece.full, ","), "]: ", parts...));
  };
  int64_t size = 1;
  for (const int64_t extent : piece.full) {
    if (extent < 0 || __builtin_mul_overflow(size, extent, &size)) return error("no such shape");
  }
  const auto rank = static_cast<int>(piece.full.size());
  if (piece.dim < 0 || piece.dim >= std::max(rank, 1)) return error("there is no dimension ", piece.dim);
  const int64_t extent = rank == 0 ? 1 : piece.full[static_cast<size_t>(piece.dim)];
  if (piece.begin < 0 || piece.begin > piece.end || piece.end > extent) {
    return error("[", piece.begin, ",", piece.end, ") lies outside of dimension ", piece.dim);
  }
  if (rank == 0 && (piece.begin != 0 || piece.end != 1)) return error("a scalar has one element");
  if (piece.first < 0 || piece.first > piece.last || piece.last > piece.box_size()) {
    return error("elements [", piece.first, ",", piece.last, ") of a box of ", piece.box_size());
  }
  return absl::OkStatus();
}

void ForEachRun(const Piece& piece, absl::FunctionRef<void(const PieceRun&)> visit) {
  RunCursor cursor(piece);
  PieceRun run;
  while (cursor.Next(&run)) visit(run);
}

std::vector<PieceRun> RunsOf(const Piece& piece) {
  std::vector<PieceRun> runs;
  ForEachRun(piece, [&](const PieceRun& run) { runs.push_back(run); });
  return runs;
}

void ForEachOverlap(const Piece& first, const Piece& second,
                    absl::FunctionRef<void(int64_t a, int64_t b, int64_t count)> visit) {
  COHORT_CHECK(first.name == second.name && first.full == second.full, "%s and %s are of different tensors",
               first.DebugString().c_str(), second.DebugString().c_str());
  RunCursor a(first), b(second);
  PieceRun x, y;
  bool more = a.Next(&x) && b.Next(&y);
  while (more) {
    const int64_t begin = std::max(x.full, y.full), end = std::min(x.full + x.count, y.full + y.count);
    if (begin < end) visit(x.offset + begin - x.full, y.offset + begin - y.full, end - begin);
    more = x.full + x.count <= y.full + y.count ? a.Next(&x) : b.Next(&y);
  }
}

absl::Status CheckCover(absl::Span<const Piece> pieces) {
  COHORT_CHECK(!pieces.empty(), "no pieces to look at");
  struct Extent {
    int64_t begin, end;
    size_t piece;
  };
  std::vector<Extent> extents;
  for (size_t i = 0; i < pieces.size(); ++i) {
    ForEachRun(pieces[i], [&](const PieceRun& run) {
      extents.push_back({run.full, run.full + run.count, i});
    });
  }
  std::sort(extents.begin(), extents.end(), [](const Extent& a, const Extent& b) {
    return a.begin < b.begin || (a.begin == b.begin && a.end < b.end);
  });
  int64_t covered = 0;
  size_t before = 0;
  const Piece& tensor = pieces[0];
  const auto gap = [&](int64_t end) {
    return absl::FailedPreconditionError(
        absl::StrCat("elements [", covered, ",", end, ") of tensor '", tensor.name, "' are in no piece"));
  };
  for (const Extent& extent : extents) {
    if (extent.begin > covered) return gap(extent.begin);
    if (extent.begin < covered) {
      return absl::FailedPreconditionError(
          absl::StrCat("elements [", extent.begin, ",", std::min(covered, extent.end), ") of tensor '",
                       tensor.name, "' are in two pieces, numbers ", before, " and ", extent.piece));
    }
    covered = extent.end;
    before = extent.piece;
  }
  if (covered < tensor.full_size()) return gap(tensor.full_size());
  return absl::OkStatus();
}

}  // namespace cohort::runtime
