#include "serving/batch_plan_check.h"

#include <map>
#include <set>

#include "absl/strings/str_cat.h"

namespace cohort::serving {
namespace {

using Slice = BatchPlan::Slice;

struct Facts {
  std::map<int64_t, const RunningSequence*> running;
  std::map<int64_t, const WaitingSequence*> waiting;
  std::set<int64_t> preempted;
  std::map<int64_t, BatchPlan::Admission> admitted;
  std::map<int64_t, Slice> slices;
};

template <typename... Args>
absl::Status Broken(const Args&... args) {
  return absl::InternalError(absl::StrCat("batch plan: ", args...));
}

absl::Status Gather(const PlanInput& input, const BatchPlan& plan, Facts& facts) {
  const auto ranks = static_cast<int32_t>(input.available_pages.size());
  for (const auto& sequence : input.running) facts.running[sequence.id] = &sequence;
  for (const auto& sequence : input.waiting) facts.waiting[sequence.id] = &sequence;
  for (int64_t id : plan.preempted) {
    if (!facts.running.contains(id)) return Broken("preempts ", id, ", which does not run");
    if (!facts.preempted.insert(id).second) return Broken("preempts ", id, " twice");
  }
  for (const auto& admission : plan.admitted) {
    if (!facts.waiting.contains(admission.id))
      return Broken("admits ", admission.id, ", which does not wait");
    if (facts.waiting[admission.id]->blocked) return Broken("admits ", admission.id, ", which is blocked");
    if (admission.rank < 0 || admission.rank >= ranks) return Broken("admits to rank ", admission.rank);
    if (!facts.admitted.emplace(admission.id, admission).second)
      return Broken("admits ", admission.id, " twice");
  }
  for (const Slice& slice : plan.slices) {
    if (!facts.slices.emplace(slice.id, slice).second) return Broken("computes ", slice.id, " twice");
  }
  return absl::OkStatus();
}

absl::Status CheckSlice(const PlanInput& input, const Facts& facts, const Slice& slice) {
  int32_t remaining = 0, cached = 0, rank = 0, pages = 0;
  if (auto it = facts.running.find(slice.id); it != facts.running.end()) {
    if (facts.preempted.contains(slice.id)) return Broken("computes ", slice.id, ", which it preempts");
    remaining = it->second->remaining(), cached = it->second->cached, rank = it->second->rank;
    pages = static_cast<int32_t>(it->second->pages.size());
  } else if (auto it = facts.admitted.find(slice.id); it != facts.admitted.end()) {
    const WaitingSequence& sequence = *facts.waiting.at(slice.id);
    cached = it->second.cached, rank = it->second.rank, remaining = sequence.tokens - cached;
    pages = cached / input.limits.page_size;
    const int32_t known = sequence.prefix.empty() ? 0 : sequence.prefix[rank].tokens;
    if (cached != known)
      return Broken("takes ", cached, " cached tokens for ", slice.id, ", there are ", known);
    if (PagesFor(sequence.tokens, input.limits.page_size) != pages + slice.new_pages) {
      return Broken("admits ", slice.id, " without pages for all its tokens");
    }
  } else {
    return Broken("computes ", slice.id, ", which neither runs nor is admitted");
  }
  if (slice.rank != rank) return Broken("computes ", slice.id, " on rank ", slice.rank, " instead of ", rank);
  if (slice.tokens < 1 || slice.tokens > remaining) {
    return Broken("computes ", slice.tokens, " tokens of ", slice.id, ", which has ", remaining, " left");
  }
  if (PagesFor(cached + slice.tokens, input.limits.page_size) > pages + slice.new_pages) {
    return Broken("computes ", slice.id, " without pages for its tokens");
  }
  return absl::OkStatus();
}

absl::Status CheckRank(const PlanInput& input, const Facts& facts, int32_t rank) {
  // Pages of the survivors, to count what preemption frees when pages are shared.
  std::set<int32_t> kept, freed;
  int64_t sequences = 0, oldest_victim = INT64_MAX, youngest_survivor = -1;
  bool any_preempted = false;
  for (const auto& [id, sequence] : facts.running) {
    if (sequence->rank != rank) continue;
    const bool victim = facts.preempted.contains(id);
    (victim ? freed : kept).insert(sequence->pages.begin(), sequence->pages.end());
    any_preempted |= victim;
    if (victim) {
      oldest_victim = std::min(oldest_victim, id);
    } else {
      ++sequences;
      youngest_survivor = std::max(youngest_survivor, id);
      if (sequence->remaining() == 1 && !facts.slices.contains(id))
        return Broken("leaves out the decode ", id);
    }
  }
  if (any_preempted && sequences == 0) return Broken("preempts even the oldest of rank ", rank);
  if (any_preempted && oldest_victim < youngest_survivor) {
    return Broken("preempts ", oldest_victim, " and keeps ", youngest_survivor, ", which is younger");
  }
  int64_t pages = input.available_pages[rank];
  for (int32_t page : freed) pages += !kept.contains(page);
  int64_t tokens = 0, taken = 0;
  for (const auto& [id, slice] : facts.slices) {
    if (slice.rank != rank) continue;
    tokens += slice.tokens;
    taken += slice.new_pages;
  }
  for (const auto& [id, admission] : facts.admitted) {
    if (admission.rank != rank) continue;
    ++sequences;
    if (any_preempted) return Broken("admits ", id, " to rank ", rank, ", which preempts");
    const WaitingSequence& sequence = *facts.waiting.at(id);
    if (!sequence.prefix.empty()) taken += sequence.prefix[rank].idle_pages;
  }
  if (tokens > input.limits.tokens_per_step) return Broken("computes ", tokens, " tokens on rank ", rank);
  if (sequences > input.limits.sequences_per_rank)
    return Broken("runs ", sequences, " sequences on rank ", rank);
  if (taken > pages) return Broken("takes ", taken, " pages of rank ", rank, ", which has ", pages);
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckBatchPlan(const PlanInput& input, const BatchPlan& plan) {
  Facts facts;
  if (absl::Status status = Gather(input, plan, facts); !status.ok()) return status;
  for (const Slice& slice : plan.slices) {
    if (absl::Status status = CheckSlice(input, facts, slice); !status.ok()) return status;
  }
  for (size_t rank = 0; rank < input.available_pages.size(); ++rank) {
    if (absl::Status status = CheckRank(input, facts, static_cast<int32_t>(rank)); !status.ok())
      return status;
  }
  bool passed_over = false, eligible = false;
  for (const WaitingSequence& sequence : input.waiting) {
    if (sequence.blocked) continue;
    eligible = true;
    const bool admitted = facts.admitted.contains(sequence.id);
    if (admitted && passed_over) return Broken("admits ", sequence.id, " before one that came earlier");
    if (admitted && !facts.slices.contains(sequence.id))
      return Broken("admits ", sequence.id, " to do nothing");
    passed_over |= !admitted;
  }
  if (plan.slices.empty() && (!input.running.empty() || eligible)) return Broken("computes nothing");
  return absl::OkStatus();
}

}  // namespace cohort::serving
