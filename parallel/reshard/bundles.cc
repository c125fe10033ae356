#include "parallel/reshard/bundles.h"

#include "absl/strings/string_view.h"

namespace cohort::parallel {
namespace {

using runtime::Piece;

absl::string_view BaseOf(const Piece& piece) {
  const absl::string_view name = piece.name;
  return name.substr(0, name.rfind('/'));
}

bool Alike(const HeldPiece& a, const HeldPiece& b) {
  const Piece &p = a.piece, &q = b.piece;
  return a.dtype == b.dtype && p.dim == q.dim && p.begin == q.begin && p.end == q.end && p.first == q.first &&
         p.last == q.last && p.full == q.full && p.name.size() > BaseOf(p).size() && BaseOf(p) == BaseOf(q);
}

// By tensor: the first one of its bundle, which place it has there, and of how many.
struct Place {
  absl::string_view first;
  int place = 0, size = 1;
  bool operator==(const Place&) const = default;
};
using Places = absl::flat_hash_map<absl::string_view, Place>;

// False where a tensor has another place than before.
bool Remember(const HeldPieces& pieces, const std::vector<Bundle>& bundles, Places& places) {
  for (const Bundle& bundle : bundles) {
    const absl::string_view first = pieces[static_cast<size_t>(bundle.first)].piece.name;
    for (int i = 0; i < bundle.size; ++i) {
      const Place place = {first, i, bundle.size};
      const auto [known, is_new] =
          places.try_emplace(pieces[static_cast<size_t>(bundle.first + i)].piece.name, place);
      if (!is_new && known->second != place) return false;
    }
  }
  return true;
}

std::vector<Bundle> BundlesOf(const HeldPieces& pieces) {
  std::vector<Bundle> bundles;
  for (size_t i = 0; i < pieces.size(); ++i) {
    if (i > 0 && Alike(pieces[i - 1], pieces[i])) {
      ++bundles.back().size;
    } else {
      bundles.push_back({static_cast<int>(i), 1});
    }
  }
  return bundles;
}

}  // namespace

Bundles::Bundles(const Layout& before, const Layout& after) {
  Places places;
  bool consistent = true;
  for (const Layout* layout : {&before, &after}) {
    for (const HeldPieces& pieces : layout->ranks) {
      const auto [at, is_new] = of_.try_emplace(pieces.identity());
      if (!is_new) continue;
      at->second = BundlesOf(pieces);
      consistent = consistent && Remember(pieces, at->second, places);
    }
  }
  if (consistent) return;
  for (const Layout* layout : {&before, &after}) {
    for (const HeldPieces& pieces : layout->ranks) {
      std::vector<Bundle>& bundles = of_[pieces.identity()];
      bundles.clear();
      for (size_t i = 0; i < pieces.size(); ++i) bundles.push_back({static_cast<int>(i), 1});
    }
  }
}

}  // namespace cohort::parallel
