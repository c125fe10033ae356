#include "parallel/reshard/piece_holders.h"

#include <algorithm>
#include <numeric>
#include <tuple>

#include "absl/container/flat_hash_map.h"

namespace cohort::parallel {
namespace {

using runtime::Piece;
using runtime::PieceRun;

auto What(const HeldBundle& part) { return std::tie(part.dim, part.begin, part.end, part.first, part.last); }

bool MayOverlap(const HeldBundle& part, const Piece& piece) {
  return part.dim != piece.dim || (part.end > piece.begin && piece.end > part.begin);
}

// From the first element to behind the last one, in the whole tensor.
std::pair<int64_t, int64_t> ExtentOf(const Piece& piece) {
  PieceRun first, last;
  ForEachRun(piece.Range(0, 1), [&](const PieceRun& run) { first = run; });
  ForEachRun(piece.Range(piece.size() - 1, piece.size()), [&](const PieceRun& run) { last = run; });
  return {first.full, last.full + 1};
}

// Mostly they are in order already: then nothing is moved, and no memory is needed.
template <typename Range, typename Less>
void StableSort(Range&& range, const Less& less) {
  if (!std::is_sorted(range.begin(), range.end(), less)) std::stable_sort(range.begin(), range.end(), less);
}

}  // namespace

PieceHolders::PieceHolders(const Layout& layout, const std::vector<bool>& lost, const Bundles& bundles)
    : list_of_(layout.ranks.size(), -1) {
  absl::flat_hash_map<const void*, int> numbers;
  std::vector<const std::vector<HeldBundle>*> contents;  // by list
  for (size_t rank = 0; rank < layout.ranks.size(); ++rank) {
    const HeldPieces& pieces = layout.ranks[rank];
    if (lost[rank] || pieces.empty()) continue;
    const auto [at, is_new] = numbers.try_emplace(pieces.identity(), lists());
    if (is_new) {
      ranks_.emplace_back();
      contents.push_back(&bundles.of(pieces));
    }
    list_of_[rank] = at->second;
    ranks_[static_cast<size_t>(at->second)].push_back(static_cast<int>(rank));
  }
  // By tensors, in the order of the lists.
  const auto each = [&](const auto& visit) {
    for (size_t list = 0; list < contents.size(); ++list) {
      for (const HeldBundle& bundle : *contents[list]) {
        if (!bundle.empty()) visit(static_cast<size_t>(bundles.number_of(bundle)), bundle, list);
      }
    }
  };
  std::vector<size_t> ends(static_cast<size_t>(bundles.count()) + 1, 0);
  each([&](size_t number, const HeldBundle&, size_t) { ++ends[number + 1]; });
  std::partial_sum(ends.begin(), ends.end(), ends.begin());
  listed_.resize(ends.back());
  each([&](size_t number, const HeldBundle& bundle, size_t list) {
    listed_[ends[number]++] = {&bundle, static_cast<int>(list)};
  });
  holders_.reserve(listed_.size());
  furthest_.reserve(listed_.size());
  first_holder_.push_back(0);
  for (size_t number = 0, at = 0; number + 1 < ends.size(); at = ends[number++]) {
    Gather(absl::MakeSpan(listed_).subspan(at, ends[number] - at));
    first_holder_.push_back(holders_.size());
  }
}

void PieceHolders::Gather(absl::Span<ListedBundle> listed) {
  const size_t first = holders_.size();
  StableSort(listed,
             [](const ListedBundle& a, const ListedBundle& b) { return What(*a.bundle) < What(*b.bundle); });
  for (size_t i = 0, end; i < listed.size(); i = end) {
    for (end = i + 1; end < listed.size() && What(*listed[end].bundle) == What(*listed[i].bundle);) ++end;
    Holders& holders = holders_.emplace_back();
    holders.lists = listed.subspan(i, end - i);
    ForEachRun(holders.part().Nameless(), [&](const PieceRun& run) { holders.runs.push_back(run); });
  }
  StableSort(absl::MakeSpan(holders_).subspan(first),
             [](const Holders& a, const Holders& b) { return a.begin() < b.begin(); });
  int64_t furthest = 0;
  for (size_t i = first; i < holders_.size(); ++i) {
    furthest = std::max(furthest, holders_[i].end());
    furthest_.push_back(furthest);
  }
}

void PieceHolders::FindNear(int number, const Piece& piece, std::vector<const Holders*>& near) const {
  near.clear();
  const auto tensors = static_cast<size_t>(number);
  const size_t first = first_holder_[tensors];
  const auto all = absl::MakeSpan(holders_).subspan(first, first_holder_[tensors + 1] - first);
  const auto [begin, end] = ExtentOf(piece);
  const auto behind =
      std::partition_point(all.begin(), all.end(), [&](const Holders& one) { return one.begin() < end; });
  for (auto at = static_cast<size_t>(behind - all.begin()); at > 0 && furthest_[first + at - 1] > begin;
       --at) {
    if (all[at - 1].end() > begin && MayOverlap(all[at - 1].part(), piece)) near.push_back(&all[at - 1]);
  }
  std::reverse(near.begin(), near.end());
}

}  // namespace cohort::parallel
