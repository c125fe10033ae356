#include "parallel/reshard/held_pieces.h"

#include <algorithm>

#include "absl/strings/string_view.h"
#include "comm/check.h"

namespace cohort::parallel {
namespace {

// Without "/<kind>".
absl::string_view BaseOf(absl::string_view name) { return name.substr(0, name.rfind('/')); }

bool Joins(const HeldPiece& held, const HeldBundle& bundle) {
  const runtime::Piece& p = held.piece;
  const TensorBundle& tensors = *bundle.tensors;
  const absl::string_view base = BaseOf(p.name);
  return held.dtype == tensors.dtype && p.dim == bundle.dim && p.begin == bundle.begin &&
         p.end == bundle.end && p.first == bundle.first && p.last == bundle.last && p.full == tensors.full &&
         p.name.size() > base.size() && base == BaseOf(tensors.names.back());
}

}  // namespace

runtime::Piece HeldBundle::PieceOf(int tensor) const {
  runtime::Piece piece = Nameless();
  piece.name = tensors->names[static_cast<size_t>(tensor)];
  return piece;
}

runtime::Piece HeldBundle::Nameless() const {
  return {.name = "",
          .full = tensors->full,
          .dim = dim,
          .begin = begin,
          .end = end,
          .first = first,
          .last = last};
}

HeldPieces::HeldPieces(const std::vector<HeldPiece>& pieces) : list_(std::make_shared<List>()) {
  for (const HeldPiece& piece : pieces) push_back(piece);
}

HeldPieces::HeldPieces(std::shared_ptr<const void> tensors, std::vector<HeldBundle> bundles)
    : list_(std::make_shared<List>()) {
  list_->tensors.push_back(std::move(tensors));
  int piece = 0;
  for (HeldBundle& bundle : bundles) {
    bundle.first_piece = piece;
    piece += bundle.count();
  }
  list_->bundles = std::move(bundles);
}

const std::vector<HeldBundle>& HeldPieces::bundles() const {
  static const std::vector<HeldBundle> none;
  return list_ == nullptr ? none : list_->bundles;
}

size_t HeldPieces::size() const {
  if (bundles().empty()) return 0;
  const HeldBundle& last = bundles().back();
  return static_cast<size_t>(last.first_piece + last.count());
}

const HeldBundle& HeldPieces::BundleWith(size_t piece) const {
  COHORT_CHECK(piece < size(), "piece %zu of %zu", piece, size());
  const auto behind = std::partition_point(bundles().begin(), bundles().end(), [&](const HeldBundle& bundle) {
    return static_cast<size_t>(bundle.first_piece) <= piece;
  });
  return *(behind - 1);
}

HeldPiece HeldPieces::operator[](size_t i) const {
  const HeldBundle& bundle = BundleWith(i);
  return {bundle.PieceOf(static_cast<int>(i) - bundle.first_piece), bundle.tensors->dtype};
}

HeldPieces::operator std::vector<HeldPiece>() const {
  std::vector<HeldPiece> pieces;
  pieces.reserve(size());
  for (const HeldBundle& bundle : bundles()) {
    for (int tensor = 0; tensor < bundle.count(); ++tensor) {
      pieces.push_back({bundle.PieceOf(tensor), bundle.tensors->dtype});
    }
  }
  return pieces;
}

HeldPieces::List& HeldPieces::Own() {
  if (list_ == nullptr) {
    list_ = std::make_shared<List>();
  } else if (list_.use_count() != 1) {
    list_ = std::make_shared<List>(*list_);
  }
  return *list_;
}

void HeldPieces::push_back(const HeldPiece& held) {
  const auto number = static_cast<int>(size());
  const runtime::Piece& piece = held.piece;
  List& list = Own();
  TensorBundle tensors{{}, piece.full, held.dtype};
  if (!list.bundles.empty() && Joins(held, list.bundles.back())) {
    tensors = *list.bundles.back().tensors;
  } else {
    list.bundles.push_back({.tensors = nullptr,
                            .first_piece = number,
                            .dim = piece.dim,
                            .begin = piece.begin,
                            .end = piece.end,
                            .first = piece.first,
                            .last = piece.last});
  }
  tensors.names.push_back(piece.name);
  const auto kept = std::make_shared<const TensorBundle>(std::move(tensors));
  list.bundles.back().tensors = kept.get();
  list.tensors.push_back(kept);
}

void HeldPieces::Append(const HeldPieces& other) {
  if (other.empty()) return;
  const HeldPieces added = other;  // which may be this one
  int number = static_cast<int>(size());
  List& list = Own();
  list.tensors.insert(list.tensors.end(), added.list_->tensors.begin(), added.list_->tensors.end());
  list.bundles.reserve(list.bundles.size() + added.bundles().size());
  for (HeldBundle bundle : added.bundles()) {
    bundle.first_piece = number;
    number += bundle.count();
    list.bundles.push_back(bundle);
  }
}

}  // namespace cohort::parallel
