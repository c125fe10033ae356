#include "parallel/reshard/gradient_layout.h"

#include <deque>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "comm/data_type.h"
#include "runtime/checkpoint/state_plan.h"

namespace cohort::parallel {
namespace {

constexpr char kGradient[] = "/grad";

}  // namespace

Layout GradientLayout(const Layout& training) {
  const std::string master = absl::StrCat("/", runtime::kStateKinds[0]);
  const auto tensors = std::make_shared<std::deque<TensorBundle>>();
  absl::flat_hash_map<const TensorBundle*, std::vector<const TensorBundle*>> gradients_of;
  // Of the masters in a bundle, each alone.
  const auto gradients = [&](const TensorBundle& bundle) -> const std::vector<const TensorBundle*>& {
    const auto [at, is_new] = gradients_of.try_emplace(&bundle);
    for (const std::string& name : bundle.names) {
      absl::string_view parameter = name;
      if (!is_new || !absl::ConsumeSuffix(&parameter, master)) continue;
      at->second.push_back(&tensors->emplace_back(
          TensorBundle{{absl::StrCat(parameter, kGradient)}, bundle.full, bundle.dtype}));
    }
    return at->second;
  };
  Layout layout;
  absl::flat_hash_map<const void*, HeldPieces> made;
  for (const HeldPieces& pieces : training.ranks) {
    const auto [at, is_new] = made.try_emplace(pieces.identity());
    if (is_new) {
      std::vector<HeldBundle> bundles;
      for (HeldBundle bundle : pieces.bundles()) {
        for (const TensorBundle* gradient : gradients(*bundle.tensors)) {
          bundle.tensors = gradient;
          bundles.push_back(bundle);
        }
      }
      at->second = HeldPieces(tensors, std::move(bundles));
    }
    layout.ranks.push_back(at->second);
  }
  return layout;
}

HeldState GradientsOf(runtime::Trainable& trainable) {
  HeldState held;
  for (const runtime::StateEntry& entry : trainable.state()) {
    if (entry.slice < 0) continue;
    const runtime::Tensor& gradient = trainable.slices()[static_cast<size_t>(entry.slice)].grad;
    HeldPiece piece = {entry.piece, gradient.dtype()};
    piece.piece.name = absl::StrCat(entry.piece.name, kGradient);
    char* memory =
        static_cast<char*>(gradient.raw()) + static_cast<size_t>(entry.offset) * SizeOf(gradient.dtype());
    held.memory.push_back(piece.piece.empty() ? nullptr : memory);
    held.devices.push_back(&gradient.device());
    held.pieces.push_back(std::move(piece));
  }
  return held;
}

}  // namespace cohort::parallel
