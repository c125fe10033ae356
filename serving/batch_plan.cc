#include "serving/batch_plan.h"

#include <algorithm>
#include <optional>
#include <unordered_map>

#include "comm/check.h"

namespace cohort::serving {
namespace {

// One rank's part of the plan while it is made.
class RankPlanner {
 public:
  RankPlanner(const PlanInput& input, int32_t rank)
      : limits_(input.limits),
        rank_(rank),
        available_(input.available_pages[rank]),
        budget_(input.limits.tokens_per_step) {
    for (const RunningSequence& sequence : input.running) {
      if (sequence.rank == rank) running_.push_back(&sequence);
    }
  }

  void Decode() {
    for (size_t i = 0; i < running_.size(); ++i) {  // preemption shortens running_ from its end
      const RunningSequence& sequence = *running_[i];
      if (sequence.remaining() != 1) continue;
      const int32_t needed = Needed(sequence, 1);
      while (available_ < needed && i < running_.size()) PreemptYoungest();
      if (i < running_.size()) Add(sequence, 1, needed);
    }
  }

  void Prefill() {
    for (const RunningSequence* sequence : running_) {
      if (sequence->remaining() == 1) continue;
      if (budget_ == 0) break;
      const int32_t tokens = std::min(sequence->remaining(), budget_);
      const int32_t needed = Needed(*sequence, tokens);
      COHORT_CHECK(needed <= available_, "sequence %ld prefills without its pages",
                   static_cast<long>(sequence->id));
      Add(*sequence, tokens, needed);
    }
  }

  // What would be left of the pages with this sequence here; nothing where it cannot come.
  bool HasRoom(const WaitingSequence& sequence) const {
    if (!preempted_.empty() || budget_ == 0 || sequences() >= limits_.sequences_per_rank) return false;
    const CachedPrefix prefix = Prefix(sequence);
    const int32_t taken =
        PagesFor(sequence.tokens, limits_.page_size) - prefix.tokens / limits_.page_size + prefix.idle_pages;
    return taken + sequences() <= available_;
  }

  void Admit(const WaitingSequence& sequence) {
    const CachedPrefix prefix = Prefix(sequence);
    const int32_t needed = PagesFor(sequence.tokens, limits_.page_size) - prefix.tokens / limits_.page_size;
    const int32_t tokens = std::min(sequence.tokens - prefix.tokens, budget_);
    admitted_.push_back({sequence.id, rank_, prefix.tokens});
    slices_.push_back({sequence.id, rank_, tokens, needed});
    available_ -= needed + prefix.idle_pages;
    budget_ -= tokens;
  }

  CachedPrefix Prefix(const WaitingSequence& sequence) const {
    return sequence.prefix.empty() ? CachedPrefix{} : sequence.prefix[rank_];
  }
  int32_t sequences() const { return static_cast<int32_t>(running_.size() + admitted_.size()); }
  int32_t available() const { return available_; }

  void MoveInto(BatchPlan& plan) const {
    plan.preempted.insert(plan.preempted.end(), preempted_.begin(), preempted_.end());
    plan.slices.insert(plan.slices.end(), slices_.begin(), slices_.end());
  }

 private:
  int32_t Needed(const RunningSequence& sequence, int32_t tokens) const {
    return std::max(0, PagesFor(sequence.cached + tokens, limits_.page_size) -
                           static_cast<int32_t>(sequence.pages.size()));
  }

  void Add(const RunningSequence& sequence, int32_t tokens, int32_t new_pages) {
    slices_.push_back({sequence.id, rank_, tokens, new_pages});
    available_ -= new_pages;
    budget_ -= tokens;
  }

  void PreemptYoungest() {
    const RunningSequence& victim = *running_.back();
    running_.pop_back();
    COHORT_CHECK(!running_.empty(), "sequence %ld is longer than the whole cache of rank %d",
                 static_cast<long>(victim.id), rank_);
    preempted_.push_back(victim.id);
    if (references_.empty()) {
      for (const RunningSequence* sequence : running_) {
        for (int32_t page : sequence->pages) ++references_[page];
      }
      for (int32_t page : victim.pages) ++references_[page];
    }
    for (int32_t page : victim.pages) available_ += --references_[page] == 0;
  }

  const PlanLimits& limits_;
  int32_t rank_;
  int32_t available_;
  int32_t budget_;
  std::vector<const RunningSequence*> running_;      // oldest first
  std::unordered_map<int32_t, int32_t> references_;  // of pages; filled when somebody is preempted
  std::vector<int64_t> preempted_;
  std::vector<BatchPlan::Admission> admitted_;
  std::vector<BatchPlan::Slice> slices_;
};

// The rank that takes this sequence, if one does.
std::optional<size_t> ChooseRank(const std::vector<RankPlanner>& ranks, const WaitingSequence& sequence) {
  std::optional<size_t> best;
  const auto better = [&](const RankPlanner& a, const RankPlanner& b) {
    const int32_t cached_a = a.Prefix(sequence).tokens, cached_b = b.Prefix(sequence).tokens;
    if (cached_a != cached_b) return cached_a > cached_b;
    if (a.sequences() != b.sequences()) return a.sequences() < b.sequences();
    return a.available() > b.available();
  };
  for (size_t rank = 0; rank < ranks.size(); ++rank) {
    if (ranks[rank].HasRoom(sequence) && (!best || better(ranks[rank], ranks[*best]))) best = rank;
  }
  return best;
}

}  // namespace

BatchPlan MakeBatchPlan(const PlanInput& input) {
  COHORT_CHECK(input.limits.tokens_per_step > input.limits.sequences_per_rank,
               "%d tokens a step, %d sequences", input.limits.tokens_per_step,
               input.limits.sequences_per_rank);
  std::vector<RankPlanner> ranks;
  for (size_t rank = 0; rank < input.available_pages.size(); ++rank) {
    RankPlanner& planner = ranks.emplace_back(input, static_cast<int32_t>(rank));
    planner.Decode();
    planner.Prefill();
  }
  BatchPlan plan;
  for (const WaitingSequence& sequence : input.waiting) {
    if (sequence.blocked) continue;
    const std::optional<size_t> rank = ChooseRank(ranks, sequence);
    if (!rank) break;
    ranks[*rank].Admit(sequence);
    plan.admitted.push_back({sequence.id, static_cast<int32_t>(*rank), ranks[*rank].Prefix(sequence).tokens});
  }
  for (const RankPlanner& planner : ranks) planner.MoveInto(plan);
  return plan;
}

}  // namespace cohort::serving
