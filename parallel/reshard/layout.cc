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
  struct Known {
    const HeldBundle* bundle;
    int tensor;
  };
  absl::flat_hash_map<absl::string_view, Known> known;
  absl::flat_hash_set<const void*> checked, checked_tensors;
  for (const Layout* layout : {&before, &after}) {
    for (int rank = 0; rank < layout->world(); ++rank) {
      const HeldPieces& pieces = layout->ranks[static_cast<size_t>(rank)];
      if (!checked.insert(pieces.identity()).second) continue;
      for (const HeldBundle& bundle : pieces.bundles()) {
        if (!CheckPiece(bundle.Nameless()).ok()) return CheckPiece(bundle.PieceOf(0));
        const TensorBundle& tensors = *bundle.tensors;
        if (!checked_tensors.insert(&tensors).second) continue;
        for (int i = 0; i < bundle.count(); ++i) {
          const Known& first =
              known.try_emplace(tensors.names[static_cast<size_t>(i)], Known{&bundle, i}).first->second;
          const TensorBundle& others = *first.bundle->tensors;
          if (others.full == tensors.full && others.dtype == tensors.dtype) continue;
          return absl::InvalidArgumentError(
              absl::StrCat(first.bundle->PieceOf(first.tensor).DebugString(), " of ", Name(others.dtype),
                           " and, on rank ", rank, ", ", bundle.PieceOf(i).DebugString(), " of ",
                           Name(tensors.dtype), " cannot be pieces of one tensor"));
        }
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace cohort::parallel
