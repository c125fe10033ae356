#include "parallel/reshard/layout.h"

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "comm/check.h"

namespace cohort::parallel {

absl::Status CheckLayouts(const Layout& before, const Layout& after) {
  if (before.world() != after.world()) {
    return absl::InvalidArgumentError(absl::StrCat("one layout numbers ", before.world(),
                                                   " ranks, the other ", after.world(),
                                                   "; both number all that have something before or after"));
  }
  absl::flat_hash_map<absl::string_view, const HeldPiece*> known;
  absl::flat_hash_set<const void*> checked;
  for (const Layout* layout : {&before, &after}) {
    for (int rank = 0; rank < layout->world(); ++rank) {
      const HeldPieces& pieces = layout->ranks[static_cast<size_t>(rank)];
      if (!checked.insert(pieces.identity()).second) continue;
      for (const HeldPiece& held : pieces) {
        COHORT_RETURN_IF_ERROR(CheckPiece(held.piece));
        const auto [it, is_new] = known.try_emplace(held.piece.name, &held);
        if (it->second->piece.full == held.piece.full && it->second->dtype == held.dtype) continue;
        return absl::InvalidArgumentError(absl::StrCat(
            it->second->piece.DebugString(), " of ", Name(it->second->dtype), " and, on rank ", rank, ", ",
            held.piece.DebugString(), " of ", Name(held.dtype), " cannot be pieces of one tensor"));
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace cohort::parallel
