#include "parallel/reshard/bundles.h"

#include <deque>
#include <memory>
#include <string>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/string_view.h"

namespace cohort::parallel {
namespace {

// Every list of both layouts once.
std::vector<const HeldPieces*> ListsOf(const Layout& before, const Layout& after) {
  std::vector<const HeldPieces*> lists;
  absl::flat_hash_set<const void*> seen;
  for (const Layout* layout : {&before, &after}) {
    for (const HeldPieces& pieces : layout->ranks) {
      if (seen.insert(pieces.identity()).second) lists.push_back(&pieces);
    }
  }
  return lists;
}

// By tensor: the first one of its bundle, which place it has there, and of how many.
struct Place {
  absl::string_view first;
  size_t place = 0, size = 1;
  bool operator==(const Place&) const = default;
};
using Places = absl::flat_hash_map<absl::string_view, Place>;

// False where a tensor has another place than before.
bool Remember(const TensorBundle& tensors, Places& places) {
  for (size_t i = 0; i < tensors.names.size(); ++i) {
    const Place place = {tensors.names[0], i, tensors.names.size()};
    if (places.try_emplace(tensors.names[i], place).first->second != place) return false;
  }
  return true;
}

// Every tensor as a bundle of its own, made once for all lists.
class Apart {
 public:
  HeldPieces List(const HeldPieces& pieces) {
    std::vector<HeldBundle> bundles;
    for (const HeldBundle& bundle : pieces.bundles()) {
      std::vector<const TensorBundle*>& single = single_[bundle.tensors];
      if (single.empty()) {
        for (const std::string& name : bundle.tensors->names) {
          single.push_back(
              &tensors_->emplace_back(TensorBundle{{name}, bundle.tensors->full, bundle.tensors->dtype}));
        }
      }
      for (const TensorBundle* tensors : single) {
        bundles.push_back(bundle);
        bundles.back().tensors = tensors;
      }
    }
    return HeldPieces(tensors_, std::move(bundles));
  }

 private:
  std::shared_ptr<std::deque<TensorBundle>> tensors_ = std::make_shared<std::deque<TensorBundle>>();
  absl::flat_hash_map<const TensorBundle*, std::vector<const TensorBundle*>> single_;
};

}  // namespace

Bundles::Bundles(const Layout& before, const Layout& after) {
  const std::vector<const HeldPieces*> lists = ListsOf(before, after);
  Places places;
  bool agree = true;
  for (const HeldPieces* pieces : lists) {
    for (const HeldBundle& bundle : pieces->bundles()) {
      if (Number(*bundle.tensors)) agree = agree && Remember(*bundle.tensors, places);
    }
  }
  if (agree) return;
  number_of_.clear();
  by_name_.clear();
  Apart apart;
  for (const HeldPieces* pieces : lists) {
    const HeldPieces& alone = alone_[pieces->identity()] = apart.List(*pieces);
    for (const HeldBundle& bundle : alone.bundles()) Number(*bundle.tensors);
  }
}

bool Bundles::Number(const TensorBundle& tensors) {
  const auto [at, is_new] = number_of_.try_emplace(&tensors, 0);
  // Of the first one alone: the others follow from it.
  if (is_new) at->second = by_name_.try_emplace(tensors.names[0], count()).first->second;
  return is_new;
}

}  // namespace cohort::parallel
