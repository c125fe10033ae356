#include "parallel/sequence/hybrid_batches.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "comm/check.h"

namespace cohort::parallel {
namespace {

// What is tried. A sequence may take longer than the mean rank needs for everything by the first before it gets more
// ranks than its tokens need. With the second, numbers of ranks divide all of them, so that groups tile.
struct HybridPolicy {
  double patience;
  bool tile;
};
constexpr double kOfTokensAlone = std::numeric_limits<double>::infinity();
constexpr HybridPolicy kHybridPolicies[] = {{kOfTokensAlone, false},
                                            {kOfTokensAlone, true},
                                            {1, false},
                                            {1, true},
                                            {0.5, false},
                                            {0.5, true},
                                            {0.25, true}};

int64_t RanksFor(int64_t length, int64_t budget) { return (length + budget - 1) / budget; }

absl::Status CheckHybridInputs(absl::Span<const int64_t> lengths, int ranks, int64_t budget) {
  if (ranks < 1 || budget < 1) {
    return absl::InvalidArgumentError(absl::StrCat("batches for ", ranks, " ranks of ", budget, " tokens"));
  }
  for (size_t s = 0; s < lengths.size(); ++s) {
    if (lengths[s] < 0)
      return absl::InvalidArgumentError(absl::StrCat("sequence ", s, " has ", lengths[s], " tokens"));
    if (RanksFor(lengths[s], budget) > ranks) {
      return absl::InvalidArgumentError(absl::StrCat("sequence ", s, " of ", lengths[s], " tokens needs ",
                                                     RanksFor(lengths[s], budget), " ranks of ", budget,
                                                     " tokens, and there are ", ranks));
    }
  }
  return absl::OkStatus();
}

// Time of one rank between two group micro-batches, to be filled with short sequences.
struct Slot {
  int before = 0;  // the group micro-batch that follows; past the last: none
  double room = 0;
  std::vector<int64_t> sequences = {};
};

// One plan: groups first, longest first, each where it can end soonest; then short sequences, costliest first, into
// waiting time where they fit and else to the rank that is done first (longest processing time first: Graham, 1969).
class HybridPlanner {
 public:
  HybridPlanner(absl::Span<const int64_t> lengths, int ranks, int64_t budget, const HybridCosts& costs,
                HybridPolicy policy)
      : lengths_(lengths),
        budget_(budget),
        costs_(costs),
        ready_(ranks, 0),
        slots_(ranks),
        plan_{ranks, budget, {}} {
    double total = 0;
    for (size_t s = 0; s < lengths.size(); ++s) total += Seconds(s, 0, 1);
    const double most = policy.patience * total / ranks;
    for (size_t s = 0; s < lengths.size(); ++s) {
      int64_t group = std::max<int64_t>(1, RanksFor(lengths[s], budget));
      while (group < std::min<int64_t>(ranks, lengths[s]) && Seconds(s, 0, static_cast<int>(group)) > most)
        ++group;
      while (policy.tile && group > 1 && ranks % group != 0) ++group;
      group_.push_back(static_cast<int>(group));
    }
  }

  HybridPlan Make() {
    std::vector<int64_t> order(lengths_.size());
    std::iota(order.begin(), order.end(), 0);
    std::sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
      if (group_[a] != group_[b]) return group_[a] > group_[b];
      return lengths_[a] != lengths_[b] ? lengths_[a] > lengths_[b] : a < b;
    });
    for (const int64_t s : order) group_[s] > 1 ? PlaceGroup(s) : PlaceShort(s);
    Pack();
    return std::move(plan_);
  }

 private:
  double Seconds(int64_t s, int first, int ranks) const {
    return GroupSeconds(costs_, {&lengths_[s], 1}, first, ranks);
  }

  void PlaceGroup(int64_t s) {
    const int group = group_[s], ranks = plan_.ranks;
    int best = 0;
    double best_begin = 0, soonest = std::numeric_limits<double>::infinity();
    bool best_aligned = false;
    for (int first = 0; first + group <= ranks; ++first) {
      const double begin = *std::max_element(ready_.begin() + first, ready_.begin() + first + group),
                   end = begin + Seconds(s, first, group);
      const bool aligned = first % group == 0;
      if (end < soonest || (end == soonest && aligned && !best_aligned)) {
        soonest = end, best = first, best_begin = begin, best_aligned = aligned;
      }
    }
    const int index = static_cast<int>(plan_.micro_batches.size());
    for (int rank = best; rank < best + group; ++rank) {
      slots_[rank].push_back({index, best_begin - ready_[rank]});
      ready_[rank] = soonest;
    }
    plan_.micro_batches.push_back({best, group, {s}});
  }

  void PlaceShort(int64_t s) {
    const double seconds = Seconds(s, 0, 1);
    for (auto& slots : slots_) {
      for (Slot& slot : slots) {
        if (slot.room < seconds || slot.before == kEnd) continue;
        slot.room -= seconds;
        slot.sequences.push_back(s);
        return;
      }
    }
    const int rank = static_cast<int>(std::min_element(ready_.begin(), ready_.end()) - ready_.begin());
    if (slots_[rank].empty() || slots_[rank].back().before != kEnd) slots_[rank].push_back({kEnd});
    slots_[rank].back().sequences.push_back(s);
    ready_[rank] += seconds;
  }

  // Short sequences of a slot into micro-batches: first fit, longest first. Before the group that they fill the time to.
  void Pack() {
    std::vector<HybridMicroBatch> all;
    const auto pack = [&](int rank, Slot& slot) {
      std::stable_sort(slot.sequences.begin(), slot.sequences.end(),
                       [&](int64_t a, int64_t b) { return lengths_[a] > lengths_[b]; });
      const size_t first = all.size();
      std::vector<int64_t> tokens;
      for (const int64_t s : slot.sequences) {
        size_t bin = 0;
        while (bin < tokens.size() && tokens[bin] + lengths_[s] > budget_) ++bin;
        if (bin == tokens.size()) tokens.push_back(0), all.push_back({rank, 1, {}});
        tokens[bin] += lengths_[s];
        all[first + bin].sequences.push_back(s);
      }
      for (size_t i = first; i < all.size(); ++i) std::sort(all[i].sequences.begin(), all[i].sequences.end());
    };
    for (int index = 0; index <= static_cast<int>(plan_.micro_batches.size()); ++index) {
      const int before = index < static_cast<int>(plan_.micro_batches.size()) ? index : kEnd;
      for (int rank = 0; rank < plan_.ranks; ++rank) {
        for (Slot& slot : slots_[rank]) {
          if (slot.before == before) pack(rank, slot);
        }
      }
      if (before != kEnd) all.push_back(plan_.micro_batches[index]);
    }
    plan_.micro_batches = std::move(all);
  }

  static constexpr int kEnd = std::numeric_limits<int>::max();
  const absl::Span<const int64_t> lengths_;
  const int64_t budget_;
  const HybridCosts& costs_;
  std::vector<int> group_;                // ranks of each sequence
  std::vector<double> ready_;             // of each rank
  std::vector<std::vector<Slot>> slots_;  // of each rank
  HybridPlan plan_;                       // groups alone until Pack
};

}  // namespace

double GroupSeconds(const HybridCosts& costs, absl::Span<const int64_t> lengths, int first_rank, int ranks) {
  double tokens = 0, pairs = 0;
  for (const int64_t length : lengths) {
    const auto s = static_cast<double>(length);
    tokens += s, pairs += s * (s + 1) / 2;
  }
  const bool near = first_rank / costs.host_ranks == (first_rank + ranks - 1) / costs.host_ranks;
  const double moving = tokens * (ranks - 1) / ranks * (near ? costs.near_token : costs.moved_token);
  return costs.micro_batch + costs.token * tokens / ranks + std::max(costs.pair * pairs / ranks, moving);
}

std::vector<int> HybridPlan::Of(int rank) const {
  std::vector<int> mine;
  for (size_t i = 0; i < micro_batches.size(); ++i) {
    const HybridMicroBatch& batch = micro_batches[i];
    if (rank >= batch.first_rank && rank < batch.first_rank + batch.ranks)
      mine.push_back(static_cast<int>(i));
  }
  return mine;
}

std::vector<std::vector<int>> RoundsOf(const HybridPlan& plan) {
  std::vector<std::vector<int>> rounds(plan.ranks);
  size_t most = 0;
  for (size_t i = 0; i < plan.micro_batches.size(); ++i) {
    const HybridMicroBatch& batch = plan.micro_batches[i];
    const auto first = rounds.begin() + batch.first_rank, last = first + batch.ranks;
    size_t round = 0;
    for (auto rank = first; rank != last; ++rank) round = std::max(round, rank->size());
    for (auto rank = first; rank != last; ++rank) {
      rank->resize(round, -1);
      rank->push_back(static_cast<int>(i));
    }
    most = std::max(most, round + 1);
  }
  for (std::vector<int>& rank : rounds) rank.resize(most, -1);
  return rounds;
}

absl::StatusOr<TokenSplit> HybridPlan::Split(int micro_batch, SplitKind kind,
                                             absl::Span<const int64_t> lengths) const {
  const HybridMicroBatch& batch = micro_batches[micro_batch];
  std::vector<int64_t> own;
  for (const int64_t s : batch.sequences) own.push_back(lengths[s]);
  return TokenSplit::Create(kind, batch.ranks, own);
}

absl::StatusOr<HybridPlan> PlanHybridBatches(absl::Span<const int64_t> lengths, int ranks, int64_t budget,
                                             const HybridCosts& costs) {
  COHORT_RETURN_IF_ERROR(CheckHybridInputs(lengths, ranks, budget));
  HybridPlan best;
  double least = std::numeric_limits<double>::infinity();
  for (const HybridPolicy policy : kHybridPolicies) {
    HybridPlan plan = HybridPlanner(lengths, ranks, budget, costs, policy).Make();
    const double seconds = SimulateHybrid(plan, lengths, costs).seconds;
    if (seconds < least) least = seconds, best = std::move(plan);
  }
  return best;
}

absl::StatusOr<int> StaticContext(absl::Span<const int64_t> lengths, int ranks, int64_t budget) {
  COHORT_RETURN_IF_ERROR(CheckHybridInputs(lengths, ranks, budget));
  const int64_t longest = lengths.empty() ? 0 : *std::max_element(lengths.begin(), lengths.end());
  for (int context = 1; context <= ranks; ++context) {
    if (ranks % context == 0 && context * budget >= longest) return context;
  }
  return absl::ResourceExhaustedError("no context group holds the longest sequence");
}

absl::StatusOr<HybridPlan> PlanStaticBatches(absl::Span<const int64_t> lengths, int ranks, int context,
                                             int64_t budget) {
  COHORT_RETURN_IF_ERROR(CheckHybridInputs(lengths, ranks, budget));
  if (context < 1 || ranks % context != 0) {
    return absl::InvalidArgumentError(absl::StrCat("context groups of ", context, " of ", ranks, " ranks"));
  }
  HybridPlan plan{ranks, budget, {}};
  int64_t tokens = 0;
  for (size_t s = 0; s < lengths.size(); ++s) {
    if (lengths[s] > context * budget) {
      return absl::InvalidArgumentError(absl::StrCat("sequence ", s, " of ", lengths[s],
                                                     " tokens in context groups of ", context, " ranks of ",
                                                     budget, " tokens"));
    }
    if (plan.micro_batches.empty() || tokens + lengths[s] > context * budget) {
      const int group = static_cast<int>(plan.micro_batches.size()) % (ranks / context);
      plan.micro_batches.push_back({group * context, context, {}});
      tokens = 0;
    }
    tokens += lengths[s];
    plan.micro_batches.back().sequences.push_back(static_cast<int64_t>(s));
  }
  return plan;
}

absl::Status CheckHybridPlan(const HybridPlan& plan, absl::Span<const int64_t> lengths) {
  std::vector<int> times(lengths.size(), 0);
  for (size_t i = 0; i < plan.micro_batches.size(); ++i) {
    const HybridMicroBatch& batch = plan.micro_batches[i];
    if (batch.ranks < 1 || batch.first_rank < 0 || batch.first_rank + batch.ranks > plan.ranks) {
      return absl::InternalError(absl::StrCat("micro-batch ", i, " is of ranks ", batch.first_rank, " to ",
                                              batch.first_rank + batch.ranks - 1, " of ", plan.ranks));
    }
    for (const int64_t s : batch.sequences) {
      if (s < 0 || s >= static_cast<int64_t>(lengths.size())) {
        return absl::InternalError(
            absl::StrCat("micro-batch ", i, " has sequence ", s, " of ", lengths.size()));
      }
      ++times[s];
    }
    for (const SplitKind kind : {SplitKind::kContiguous, SplitKind::kZigzag, SplitKind::kStriped}) {
      COHORT_ASSIGN_OR_RETURN(const TokenSplit split, plan.Split(static_cast<int>(i), kind, lengths));
      for (int rank = 0; rank < batch.ranks; ++rank) {
        if (split.tokens(rank) <= plan.budget) continue;
        return absl::InternalError(absl::StrCat("micro-batch ", i, " gives rank ", batch.first_rank + rank,
                                                " ", split.tokens(rank), " tokens, and its budget is ",
                                                plan.budget));
      }
    }
  }
  for (size_t s = 0; s < times.size(); ++s) {
    if (times[s] != 1)
      return absl::InternalError(absl::StrCat("sequence ", s, " is computed ", times[s], " times"));
  }
  // Ranks in lists of their own: a micro-batch is made when it is the next one of all its ranks.
  std::vector<std::vector<int>> lists;
  std::vector<size_t> next(plan.ranks, 0);
  for (int rank = 0; rank < plan.ranks; ++rank) lists.push_back(plan.Of(rank));
  for (bool moved = true; moved;) {
    moved = false;
    for (int rank = 0; rank < plan.ranks; ++rank) {
      if (next[rank] == lists[rank].size()) continue;
      const int index = lists[rank][next[rank]];
      const HybridMicroBatch& batch = plan.micro_batches[index];
      bool together = true;
      for (int r = batch.first_rank; r < batch.first_rank + batch.ranks; ++r) {
        together = together && next[r] < lists[r].size() && lists[r][next[r]] == index;
      }
      if (!together) continue;
      for (int r = batch.first_rank; r < batch.first_rank + batch.ranks; ++r) ++next[r];
      moved = true;
    }
  }
  for (int rank = 0; rank < plan.ranks; ++rank) {
    if (next[rank] < lists[rank].size())
      return absl::InternalError(absl::StrCat("rank ", rank, " waits for ever"));
  }
  return absl::OkStatus();
}

HybridTime SimulateHybrid(const HybridPlan& plan, absl::Span<const int64_t> lengths,
                          const HybridCosts& costs) {
  HybridTime time;
  std::vector<double> ready(plan.ranks, 0);
  for (const HybridMicroBatch& batch : plan.micro_batches) {
    std::vector<int64_t> own;
    for (const int64_t s : batch.sequences) {
      own.push_back(lengths[s]);
      if (batch.ranks > 1) time.moved += lengths[s];
    }
    const auto first = ready.begin() + batch.first_rank, last = first + batch.ranks;
    const double seconds = GroupSeconds(costs, own, batch.first_rank, batch.ranks),
                 end = *std::max_element(first, last) + seconds;
    std::fill(first, last, end);
    time.busy += seconds * batch.ranks / plan.ranks;
    time.seconds = std::max(time.seconds, end);
  }
  return time;
}

runtime::LossScale LossScaleOf(absl::Span<const int64_t> predicted) {
  runtime::LossScale scale{0, static_cast<double>(predicted.size())};
  for (const int64_t count : predicted) scale.tokens += static_cast<double>(count);
  return scale;
}

}  // namespace cohort::parallel
