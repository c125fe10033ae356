#include "parallel/reshard/gradient_layout.h"

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
  Layout layout;
  absl::flat_hash_map<const void*, HeldPieces> made;
  for (const HeldPieces& pieces : training.ranks) {
    const auto [at, is_new] = made.try_emplace(pieces.identity());
    if (!is_new) {
      layout.ranks.push_back(at->second);
      continue;
    }
    std::vector<HeldPiece> gradients;
    for (const HeldPiece& held : pieces) {
      absl::string_view parameter = held.piece.name;
      if (!absl::ConsumeSuffix(&parameter, master)) continue;
      HeldPiece gradient = held;
      gradient.piece.name = absl::StrCat(parameter, kGradient);
      gradients.push_back(std::move(gradient));
    }
    at->second = std::move(gradients);
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
    held.pieces.push_back(std::move(piece));
  }
  return held;
}

}  // namespace cohort::parallel
