// The checker of reshard plans. It shares no code with the planner but what pieces are.
#include <algorithm>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "comm/check.h"
#include "parallel/reshard/reshard_plan.h"

namespace cohort::parallel {
namespace {

using runtime::Piece;

// A layout piece by piece: lists once for all ranks that share them.
class Pieces {
 public:
  explicit Pieces(const Layout& layout) {
    for (const HeldPieces& pieces : layout.ranks) {
      const auto [at, is_new] = lists_.try_emplace(pieces.identity());
      if (is_new) at->second = pieces;
      ranks_.push_back(&at->second);
    }
  }
  const std::vector<HeldPiece>& of(int rank) const { return *ranks_[static_cast<size_t>(rank)]; }
  const HeldPiece* Find(int rank, int piece) const {
    if (rank < 0 || static_cast<size_t>(rank) >= ranks_.size() || piece < 0) return nullptr;
    return static_cast<size_t>(piece) < of(rank).size() ? &of(rank)[static_cast<size_t>(piece)] : nullptr;
  }

 private:
  std::map<const void*, std::vector<HeldPiece>> lists_;
  std::vector<const std::vector<HeldPiece>*> ranks_;
};

int64_t Common(const Piece& a, const Piece& b) {
  int64_t common = 0;
  ForEachOverlap(a, b, [&](int64_t, int64_t, int64_t count) { common += count; });
  return common;
}

}  // namespace

absl::Status CheckReshard(const Layout& before, const Layout& after, const ReshardOptions& options,
                          const ReshardPlan& plan) {
  COHORT_RETURN_IF_ERROR(CheckLayouts(before, after));
  const std::set<int> lost(options.lost.begin(), options.lost.end());
  // What arrives in each new piece: [begin, end).
  std::vector<std::vector<std::vector<std::pair<int64_t, int64_t>>>> arrived;
  for (const auto& pieces : after.ranks) arrived.emplace_back(pieces.size());
  const Pieces old_pieces(before), new_pieces(after);

  for (size_t i = 0; i < plan.copies.size(); ++i) {
    const PieceCopy& copy = plan.copies[i];
    const auto error = [&](auto&&... parts) {
      return absl::InternalError(absl::StrCat("copy ", i, ", from rank ", copy.source, " to rank ",
                                              copy.destination, ": ", parts...));
    };
    const HeldPiece* from = old_pieces.Find(copy.source, copy.from_piece);
    const HeldPiece* to = new_pieces.Find(copy.destination, copy.to_piece);
    if (from == nullptr) return error("there is no old piece ", copy.from_piece);
    if (to == nullptr) return error("there is no new piece ", copy.to_piece);
    if (lost.contains(copy.source)) return error("the source is lost");
    if (from->piece.name != to->piece.name) return error(from->piece.name, " becomes ", to->piece.name);
    if (copy.count < 1 || copy.blocks < 1) return error("it is empty");
    for (int64_t block = 0; block < copy.blocks; ++block) {
      const int64_t a = copy.from + block * copy.from_stride, b = copy.to + block * copy.to_stride;
      if (a < 0 || a + copy.count > from->piece.size() || b < 0 || b + copy.count > to->piece.size()) {
        return error("block ", block, " lies outside of its pieces");
      }
      const Piece source = from->piece.Range(a, a + copy.count), target = to->piece.Range(b, b + copy.count);
      int64_t equal = 0;
      ForEachOverlap(source, target, [&](int64_t x, int64_t y, int64_t count) {
        if (x == y) equal += count;
      });
      if (equal != copy.count) {
        return error("block ", block, " brings ", source.DebugString(), " where ", target.DebugString(),
                     " is to be");
      }
      arrived[static_cast<size_t>(copy.destination)][static_cast<size_t>(copy.to_piece)].emplace_back(
          b, b + copy.count);
      if (copy.stays()) continue;
      for (const HeldPiece& own : old_pieces.of(copy.destination)) {
        if (own.piece.name == target.name && Common(own.piece, target) > 0) {
          return error("block ", block, " brings ", target.DebugString(), ", of which ",
                       own.piece.DebugString(), " is there already");
        }
      }
    }
  }
  for (size_t rank = 0; rank < arrived.size(); ++rank) {
    for (size_t piece = 0; piece < arrived[rank].size(); ++piece) {
      auto& ranges = arrived[rank][piece];
      const Piece& wanted = new_pieces.of(static_cast<int>(rank))[piece].piece;
      std::sort(ranges.begin(), ranges.end());
      int64_t at = 0;
      for (const auto& [begin, end] : ranges) {
        if (begin != at) {
          return absl::InternalError(absl::StrCat("rank ", rank, ", ", wanted.DebugString(), ": element ",
                                                  std::min(begin, at),
                                                  begin > at ? " never arrives" : " arrives twice"));
        }
        at = end;
      }
      if (at != wanted.size()) {
        return absl::InternalError(
            absl::StrCat("rank ", rank, ", ", wanted.DebugString(), ": element ", at, " never arrives"));
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace cohort::parallel
