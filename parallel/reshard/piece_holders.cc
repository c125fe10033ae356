#include "parallel/reshard/piece_holders.h"

#include <algorithm>
#include <tuple>

namespace cohort::parallel {
namespace {

using runtime::Piece;
using runtime::PieceRun;

// A piece of a list, before equal ones are together.
struct Listed {
  const Piece* piece;
  int list, index;

  auto what() const { return std::tie(piece->dim, piece->begin, piece->end, piece->first, piece->last); }
};

bool MayOverlap(const Holders& holders, const Piece& piece) {
  return holders.piece->dim != piece.dim ||
         (holders.piece->end > piece.begin && piece.end > holders.piece->begin);
}

// From the first element to behind the last one, in the whole tensor.
std::pair<int64_t, int64_t> ExtentOf(const Piece& piece) {
  PieceRun first, last;
  ForEachRun(piece.Range(0, 1), [&](const PieceRun& run) { first = run; });
  ForEachRun(piece.Range(piece.size() - 1, piece.size()), [&](const PieceRun& run) { last = run; });
  return {first.full, last.full + 1};
}

}  // namespace

PieceHolders::PieceHolders(const Layout& layout, const std::vector<bool>& lost, const Bundles& bundles)
    : list_of_(layout.ranks.size(), -1) {
  absl::flat_hash_map<const void*, int> numbers;
  absl::flat_hash_map<absl::string_view, std::vector<Listed>> listed;
  for (size_t rank = 0; rank < layout.ranks.size(); ++rank) {
    const HeldPieces& pieces = layout.ranks[rank];
    if (lost[rank] || pieces.empty()) continue;
    const auto [at, is_new] = numbers.try_emplace(pieces.identity(), lists());
    if (is_new) {
      ranks_.emplace_back();
      for (const Bundle& bundle : bundles.of(pieces)) {
        const Piece& piece = pieces[static_cast<size_t>(bundle.first)].piece;
        if (!piece.empty()) listed[piece.name].push_back({&piece, at->second, bundle.first});
      }
    }
    list_of_[rank] = at->second;
    ranks_[static_cast<size_t>(at->second)].push_back(static_cast<int>(rank));
  }
  for (auto& [name, all] : listed) {
    std::stable_sort(all.begin(), all.end(),
                     [](const Listed& a, const Listed& b) { return a.what() < b.what(); });
    Tensor& tensor = tensors_[name];
    for (const Listed& one : all) {
      if (tensor.holders.empty() || Listed{tensor.holders.back().piece, 0, 0}.what() != one.what()) {
        Holders& holders = tensor.holders.emplace_back();
        holders.piece = one.piece;
        ForEachRun(*one.piece, [&](const PieceRun& run) { holders.runs.push_back(run); });
      }
      tensor.holders.back().lists.emplace_back(one.list, one.index);
    }
    std::stable_sort(tensor.holders.begin(), tensor.holders.end(),
                     [](const Holders& a, const Holders& b) { return a.begin() < b.begin(); });
    int64_t furthest = 0;
    for (const Holders& holders : tensor.holders) {
      furthest = std::max(furthest, holders.end());
      tensor.furthest.push_back(furthest);
    }
  }
}

void PieceHolders::FindNear(const Piece& piece, std::vector<const Holders*>& near) const {
  near.clear();
  const auto found = tensors_.find(piece.name);
  if (found == tensors_.end()) return;
  const auto& [all, furthest] = found->second;
  const auto [begin, end] = ExtentOf(piece);
  const auto behind =
      std::partition_point(all.begin(), all.end(), [&](const Holders& one) { return one.begin() < end; });
  for (auto at = static_cast<size_t>(behind - all.begin()); at > 0 && furthest[at - 1] > begin; --at) {
    if (all[at - 1].end() > begin && MayOverlap(all[at - 1], piece)) near.push_back(&all[at - 1]);
  }
  std::reverse(near.begin(), near.end());
}

}  // namespace cohort::parallel
