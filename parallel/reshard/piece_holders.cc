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

  auto what() const {
    return std::tie(piece->dim, piece->begin, piece->end, piece->first, piece->last);
  }
};

bool MayOverlap(const Holders& holders, const Piece& piece, absl::Span<const PieceRun> runs) {
  if (holders.piece->dim == piece.dim &&
      (holders.piece->end <= piece.begin || piece.end <= holders.piece->begin)) {
    return false;
  }
  return holders.begin() < runs.back().full + runs.back().count && runs.front().full < holders.end();
}

}  // namespace

PieceHolders::PieceHolders(const Layout& layout, const std::vector<bool>& lost)
    : list_of_(layout.ranks.size(), -1) {
  absl::flat_hash_map<const void*, int> numbers;
  absl::flat_hash_map<absl::string_view, std::vector<Listed>> listed;
  for (size_t rank = 0; rank < layout.ranks.size(); ++rank) {
    const HeldPieces& pieces = layout.ranks[rank];
    if (lost[rank] || pieces.empty()) continue;
    const auto [at, is_new] = numbers.try_emplace(pieces.identity(), lists());
    if (is_new) {
      ranks_.emplace_back();
      for (size_t i = 0; i < pieces.size(); ++i) {
        if (!pieces[i].piece.empty())
          listed[pieces[i].piece.name].push_back({&pieces[i].piece, at->second, static_cast<int>(i)});
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

void PieceHolders::FindNear(const Piece& piece, absl::Span<const PieceRun> runs,
                            std::vector<const Holders*>& near) const {
  near.clear();
  const auto found = tensors_.find(piece.name);
  if (found == tensors_.end() || runs.empty()) return;
  const auto& [all, furthest] = found->second;
  const int64_t end = runs.back().full + runs.back().count;
  const auto behind =
      std::partition_point(all.begin(), all.end(), [&](const Holders& one) { return one.begin() < end; });
  for (auto at = static_cast<size_t>(behind - all.begin()); at > 0 && furthest[at - 1] > runs.front().full; --at) {
    if (MayOverlap(all[at - 1], piece, runs)) near.push_back(&all[at - 1]);
  }
  std::reverse(near.begin(), near.end());
}

}  // namespace cohort::parallel
