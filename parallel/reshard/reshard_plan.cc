#include "parallel/reshard/reshard_plan.h"

#include <algorithm>
#include <deque>
#include <functional>
#include <memory>
#include <numeric>
#include <queue>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/types/span.h"
#include "comm/check.h"
#include "parallel/reshard/bundles.h"
#include "parallel/reshard/piece_holders.h"
#include "parallel/reshard/stretches.h"

namespace cohort::parallel {
namespace {

// Which rank of those that have a stretch sends it: of the destination's host where there is one, of those whose turn it
// is, and else the one that sends least so far.
class SourceChooser {
 public:
  SourceChooser(const PieceHolders& holders, int world, const ReshardOptions& options)
      : holders_(holders),
        options_(options),
        sent_(static_cast<size_t>(world), 0),
        least_(static_cast<size_t>(holders.lists())) {
    for (int list = 0; list < holders.lists(); ++list) {
      for (const int rank : holders.ranks_of(list)) {
        least_[static_cast<size_t>(list)].emplace(0, rank);
        if (!options.host_of.empty()) near_[{list, HostOf(rank)}].push_back(rank);
      }
    }
  }

  // Other pieces begin.
  void EndTurn() { turn_ = {}; }

  struct Chosen {
    int rank;
    const StretchSource* source;
    int64_t elements;  // that it may send of the stretch now: whole blocks, or a part of one
  };
  // For the next `count` elements, of so many bytes, of each of `blocks` blocks, of so many tensors alike; counts what is
  // chosen as sent.
  Chosen Choose(const Stretch& stretch, int64_t count, int64_t blocks, int destination, int64_t element,
                int tensors) {
    Chosen best = Best(stretch, destination);
    const bool goes_on = best.rank == turn_.rank && turn_.bytes > 0;
    if (!goes_on) turn_ = {best.rank, std::max(options_.turn_bytes, element)};
    best.elements = count * blocks;
    if (stretch.sources.size() > 1 || holders_.ranks_of(best.source->list).size() > 1) {
      best.elements = std::min(best.elements, std::max<int64_t>(1, turn_.bytes / element));
      if (best.elements > count) best.elements -= best.elements % count;
    }
    turn_.bytes -= best.elements * element;
    sent_[static_cast<size_t>(best.rank)] += best.elements * element * tensors;
    return best;
  }

 private:
  int HostOf(int rank) const { return options_.host_of[static_cast<size_t>(rank)]; }

  Chosen Best(const Stretch& stretch, int destination) {
    const bool hosts = !options_.host_of.empty();
    const StretchSource* with_turn = nullptr;
    const int list_with_turn = turn_.bytes > 0 ? holders_.list_of(turn_.rank) : -1;
    Chosen best{-1, nullptr, 0}, afar{-1, nullptr, 0};
    const auto take = [&](Chosen& into, int rank, const StretchSource& source) {
      if (into.rank >= 0 && std::pair(Sent(rank), rank) >= std::pair(Sent(into.rank), into.rank)) return;
      into = {rank, &source, 0};
    };
    for (const StretchSource& source : stretch.sources) {
      if (source.list == list_with_turn && with_turn == nullptr) with_turn = &source;
      if (hosts) {
        const auto near = near_.find({source.list, HostOf(destination)});
        if (near != near_.end()) {
          for (const int rank : near->second) take(best, rank, source);
        }
      }
      if (best.rank < 0) take(afar, LeastSender(source.list), source);
    }
    if (with_turn != nullptr && (!hosts || best.rank < 0 || HostOf(turn_.rank) == HostOf(destination))) {
      return {turn_.rank, with_turn, 0};
    }
    return best.rank >= 0 ? best : afar;
  }

  int64_t Sent(int rank) const { return sent_[static_cast<size_t>(rank)]; }

  // Of the ranks with that list; of equals the first.
  int LeastSender(int list) {
    auto& queue = least_[static_cast<size_t>(list)];
    while (queue.top().first != Sent(queue.top().second)) {
      const int rank = queue.top().second;
      queue.pop();
      queue.emplace(Sent(rank), rank);
    }
    return queue.top().second;
  }

  const PieceHolders& holders_;
  const ReshardOptions& options_;
  std::vector<int64_t> sent_;  // bytes, by rank
  // By list: (bytes sent, rank), the least first. Bytes may be from before, and only grow.
  using Sender = std::pair<int64_t, int>;
  std::vector<std::priority_queue<Sender, std::vector<Sender>, std::greater<>>> least_;
  absl::flat_hash_map<std::pair<int, int>, std::vector<int>> near_;  // ranks by (list, host)
  struct Turn {
    int rank = -1;
    int64_t bytes = 0;
  } turn_;
};

// The copies of a plan as they are made, in the order of (destination, to_piece): those of a bundle of tensors once. In
// blocks of memory, because a plan may have millions.
class MadeCopies {
 public:
  // From one source to one destination, of the first of so many tensors alike.
  void Add(absl::Span<const PieceCopy> copies, int tensors) {
    if (blocks_.empty() || blocks_.back().size() + copies.size() > blocks_.back().capacity()) {
      blocks_.emplace_back().reserve(std::max(kBlock, copies.size()));
    }
    std::vector<PieceCopy>& block = blocks_.back();
    runs_.push_back({block.data() + block.size(), static_cast<int>(copies.size()), tensors});
    block.insert(block.end(), copies.begin(), copies.end());
  }

  // By source, tensor by tensor; they are in order otherwise.
  ReshardPlan InOrder(int world) const {
    std::vector<size_t> ends(static_cast<size_t>(world) + 1, 0);  // by source
    size_t total = 0;
    for (const Run& run : runs_) {
      ++ends[static_cast<size_t>(run.first->source) + 1];
      total += static_cast<size_t>(run.copies) * static_cast<size_t>(run.tensors);
    }
    std::partial_sum(ends.begin(), ends.end(), ends.begin());
    std::vector<const Run*> runs(runs_.size());
    for (const Run& run : runs_) runs[ends[static_cast<size_t>(run.first->source)]++] = &run;
    ReshardPlan plan;
    plan.copies.reserve(total);
    for (const Run* run : runs) {
      for (int tensor = 0; tensor < run->tensors; ++tensor) {
        for (int i = 0; i < run->copies; ++i) {
          PieceCopy& copy = plan.copies.emplace_back(run->first[i]);
          copy.from_piece += tensor;
          copy.to_piece += tensor;
        }
      }
    }
    return plan;
  }

 private:
  static constexpr size_t kBlock = size_t{1} << 14;
  struct Run {
    const PieceCopy* first;
    int copies, tensors;
  };
  std::deque<std::vector<PieceCopy>> blocks_;
  std::vector<Run> runs_;
};

class Planner {
 public:
  Planner(const Layout& before, const Layout& after, const ReshardOptions& options)
      : before_(before),
        after_(after),
        options_(options),
        lost_(Lost()),
        bundles_(before, after),
        holders_(before, lost_, bundles_),
        chooser_(holders_, before.world(), options) {}

  absl::StatusOr<ReshardPlan> Run() {
    for (int rank = 0; rank < after_.world(); ++rank) ++left_[KeyOf(rank)];
    for (int rank = 0; rank < after_.world(); ++rank) {
      if (Wanted(rank).empty()) continue;
      // Ranks that hold the same and are to hold the same need the same.
      const auto key = KeyOf(rank);
      std::unique_ptr<Needs>& needs = needs_[key];
      if (needs == nullptr) {
        const HeldPieces& wanted = Wanted(rank);
        needs = std::make_unique<Needs>(NeedsOf(holders_, holders_.list_of(rank), wanted, bundles_));
      }
      if (needs->missing.has_value()) return Missing(rank, *needs->missing);
      Plan(rank, *needs);
      if (--left_[key] == 0) needs_.erase(key);
    }
    return made_.InOrder(before_.world());
  }

 private:
  using Key = std::pair<int, const void*>;  // the list that it has, and the one that it is to have

  std::vector<bool> Lost() const {
    std::vector<bool> lost(static_cast<size_t>(before_.world()), false);
    for (const int rank : options_.lost) lost[static_cast<size_t>(rank)] = true;
    return lost;
  }
  const HeldPieces& Wanted(int rank) const { return after_.ranks[static_cast<size_t>(rank)]; }
  Key KeyOf(int rank) const { return {holders_.list_of(rank), Wanted(rank).identity()}; }

  void Plan(int destination, const Needs& needs) {
    auto stays = needs.stays.begin();
    auto comes = needs.comes.begin();
    for (const HeldBundle& bundle : bundles_.of(Wanted(destination))) {
      copies_.clear();
      for (; stays != needs.stays.end() && stays->to_piece == bundle.first_piece; ++stays) {
        copies_.push_back(*stays);
        copies_.back().source = copies_.back().destination = destination;
      }
      chooser_.EndTurn();
      for (; comes != needs.comes.end() && comes->to_piece == bundle.first_piece; ++comes)
        PlanStretch(destination, *comes, bundle);
      std::sort(pending_.begin(), pending_.end(),
                [](const auto& a, const auto& b) { return a.first < b.first; });
      for (const auto& [from, copies] : pending_) copies_.insert(copies_.end(), copies.begin(), copies.end());
      pending_.clear();
      for (size_t i = 0, end; i < copies_.size(); i = end) {
        for (end = i + 1; end < copies_.size() && copies_[end].source == copies_[i].source;) ++end;
        made_.Add(absl::MakeConstSpan(copies_).subspan(i, end - i), bundle.count());
      }
    }
  }

  void PlanStretch(int destination, const Stretch& stretch, const HeldBundle& bundle) {
    const auto element = static_cast<int64_t>(SizeOf(bundle.tensors->dtype));
    int64_t block = 0, at = 0;  // the next element that is still to come
    while (block < stretch.blocks) {
      const bool whole = at == 0;
      const int64_t count = stretch.count - at;
      const auto chosen = chooser_.Choose(stretch, count, whole ? stretch.blocks - block : 1, destination,
                                          element, bundle.count());
      const int64_t blocks = std::max<int64_t>(1, chosen.elements / count);
      PieceCopy copy{.source = chosen.rank,
                     .destination = destination,
                     .from_piece = chosen.source->index,
                     .to_piece = stretch.to_piece,
                     .from = chosen.source->from + block * chosen.source->stride + at,
                     .to = stretch.to + block * stretch.stride + at,
                     .count = std::min(count, chosen.elements),
                     .blocks = blocks};
      if (blocks > 1) copy.from_stride = chosen.source->stride, copy.to_stride = stretch.stride;
      AddCopy(copy, PendingFrom({chosen.rank, chosen.source->index}));
      at += copy.count;
      if (at == stretch.count) block += blocks, at = 0;
    }
  }

  std::vector<PieceCopy>& PendingFrom(std::pair<int, int> from) {
    for (auto& [other, copies] : pending_) {
      if (other == from) return copies;
    }
    return pending_.emplace_back(from, std::vector<PieceCopy>()).second;
  }

  absl::Status Missing(int destination, const Needs::Missing& missing) const {
    const std::string name = Wanted(destination)[static_cast<size_t>(missing.to_piece)].piece.name;
    std::vector<int> had;
    for (size_t i = 0; i < options_.lost.size(); ++i) {
      const std::vector<HeldBundle>& held = before_.ranks[static_cast<size_t>(options_.lost[i])].bundles();
      if (std::any_of(held.begin(), held.end(), [&](const HeldBundle& bundle) {
            const std::vector<std::string>& names = bundle.tensors->names;
            return std::find(names.begin(), names.end(), name) != names.end();
          })) {
        had.push_back(options_.lost_names.empty() ? options_.lost[i] : options_.lost_names[i]);
      }
    }
    return absl::NotFoundError(absl::StrCat(
        "rank ", destination, " needs element ", missing.element, " of tensor '", name,
        "', which no rank has",
        had.empty()
            ? ""
            : absl::StrCat(" that is left (of those lost, ", absl::StrJoin(had, ", "), " had some of it)"),
        "; it has to be read from a checkpoint"));
  }

  const Layout &before_, &after_;
  const ReshardOptions& options_;
  const std::vector<bool> lost_;
  const Bundles bundles_;
  const PieceHolders holders_;
  SourceChooser chooser_;
  absl::flat_hash_map<Key, std::unique_ptr<Needs>> needs_;
  absl::flat_hash_map<Key, int> left_;  // ranks that are still to be planned
  // Of one bundle of new pieces: by (source, its piece).
  std::vector<std::pair<std::pair<int, int>, std::vector<PieceCopy>>> pending_;
  std::vector<PieceCopy> copies_;  // of one bundle, by source
  MadeCopies made_;
};

}  // namespace

absl::StatusOr<ReshardPlan> PlanReshard(const Layout& before, const Layout& after,
                                        const ReshardOptions& options) {
  COHORT_RETURN_IF_ERROR(CheckLayouts(before, after));
  if (!options.lost_names.empty() && options.lost_names.size() != options.lost.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat(options.lost_names.size(), " names for ", options.lost.size(), " lost ranks"));
  }
  if (!options.host_of.empty() && options.host_of.size() != before.ranks.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("hosts of ", options.host_of.size(), " ranks for layouts of ", before.world()));
  }
  for (const int rank : options.lost) {
    if (rank < 0 || rank >= after.world())
      return absl::InvalidArgumentError(absl::StrCat("there is no rank ", rank));
    if (!after.ranks[static_cast<size_t>(rank)].empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat("rank ", rank, " is lost and is to hold ",
                       after.ranks[static_cast<size_t>(rank)][0].piece.DebugString()));
    }
  }
  return Planner(before, after, options).Run();
}

}  // namespace cohort::parallel
