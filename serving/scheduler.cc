#include "serving/scheduler.h"

#include <algorithm>
#include <utility>

#include "comm/check.h"

namespace cohort::serving {

Scheduler::Scheduler(const RunnerInfo& info, PlanLimits limits, bool share_prefixes)
    : limits_(limits),
      capacity_(static_cast<int32_t>(
          std::min<int64_t>(info.context_length, int64_t{info.pages} * info.page_size))) {
  for (int32_t rank = 0; rank < info.ranks; ++rank)
    pools_.emplace_back(info.pages, info.page_size, share_prefixes);
}

void Scheduler::Add(Sequence& sequence) { waiting_.emplace(sequence.id, &sequence); }

void Scheduler::Remove(Sequence& sequence) {
  waiting_.erase(sequence.id);
  running_.erase(sequence.id);
  pools_[sequence.rank].Release(sequence.pages);
  sequence.pages.clear();
  sequence.cached = 0;
}

// At least one token must be computed, and every token of a prompt whose tokens are to be scored.
int32_t Scheduler::PrefixLimit(const Sequence& sequence) const {
  const ActiveRequest& request = sequence.request;
  if (sequence.index == 0 && request.spec.prompt_logprobs && !request.prompt_sent) return 0;
  return static_cast<int32_t>(sequence.tokens.size()) - 1;
}

PlanInput Scheduler::Input() const {
  PlanInput input;
  input.limits = limits_;
  for (const auto& [id, sequence] : running_) {
    input.running.push_back({id, sequence->rank, static_cast<int32_t>(sequence->tokens.size()),
                             sequence->cached, sequence->pages});
  }
  const auto ranks = static_cast<int64_t>(pools_.size());
  for (const PagePool& pool : pools_) input.available_pages.push_back(pool.available());
  // No more candidates than a step could admit: prefixes are looked up for each.
  int64_t places = ranks * limits_.sequences_per_rank - static_cast<int64_t>(running_.size());
  int64_t tokens = ranks * limits_.tokens_per_step;
  for (const auto& [id, sequence] : waiting_) {
    if (places <= 0 || tokens <= 0) break;
    WaitingSequence candidate{id, static_cast<int32_t>(sequence->tokens.size()), false, {}};
    candidate.blocked = sequence->index > 0 && !sequence->request.prompt_cached;
    if (!candidate.blocked) {
      int32_t most = 0;
      for (const PagePool& pool : pools_) {
        const PrefixHit hit = pool.Find(sequence->tokens, PrefixLimit(*sequence));
        candidate.prefix.push_back({static_cast<int32_t>(hit.pages.size()) * limits_.page_size, hit.idle});
        most = std::max(most, candidate.prefix.back().tokens);
      }
      --places;
      tokens -= candidate.tokens - most;
    }
    input.waiting.push_back(std::move(candidate));
  }
  return input;
}

Step Scheduler::Prepare(const BatchPlan& plan) {
  for (int64_t id : plan.preempted) {
    Sequence& sequence = *running_.at(id);
    Remove(sequence);
    Add(sequence);
  }
  // All prefixes are taken before anything is allocated, which could evict them.
  for (const auto& admission : plan.admitted) {
    Sequence& sequence = *waiting_.at(admission.id);
    PagePool& pool = pools_[admission.rank];
    PrefixHit hit = pool.Find(sequence.tokens, admission.cached);
    COHORT_CHECK(static_cast<int32_t>(hit.pages.size()) * limits_.page_size == admission.cached,
                 "a prefix of %d tokens has gone", admission.cached);
    pool.Acquire(hit.pages);
    prefix_queries_ += static_cast<int64_t>(sequence.tokens.size());
    prefix_hits_ += admission.cached;
    sequence.rank = admission.rank;
    sequence.cached = admission.cached;
    sequence.pages = std::move(hit.pages);
    sequence.request.begun = true;
    waiting_.erase(admission.id);
    running_.emplace(admission.id, &sequence);
  }
  Step step;
  step.ranks.resize(pools_.size());
  for (const auto& slice : plan.slices) {
    Sequence& sequence = *running_.at(slice.id);
    for (int32_t i = 0; i < slice.new_pages; ++i) sequence.pages.push_back(pools_[slice.rank].Allocate());
    AddSlice(sequence, slice.tokens, step.ranks[slice.rank]);
  }
  return step;
}

void Scheduler::AddSlice(const Sequence& sequence, int32_t tokens, RankStep& step) const {
  const ActiveRequest& request = sequence.request;
  const int32_t end = sequence.cached + tokens;
  for (int32_t position = sequence.cached; position < end; ++position) {
    const auto row = static_cast<int32_t>(step.tokens.size());
    step.tokens.push_back(sequence.tokens[position]);
    step.positions.push_back(position);
    step.slots.push_back(sequence.pages[position / limits_.page_size] * limits_.page_size +
                         position % limits_.page_size);
    if (sequence.index == 0 && request.spec.prompt_logprobs && position + 1 < request.prompt_tokens() &&
        !request.prompt_scores[position]) {
      WantedRow& wanted = step.rows.emplace_back();
      wanted.row = row;
      wanted.target = sequence.tokens[position + 1];
      wanted.top_scores = *request.spec.prompt_logprobs;
    }
    if (position + 1 == static_cast<int32_t>(sequence.tokens.size())) {
      WantedRow& wanted = step.rows.emplace_back();
      wanted.row = row;
      wanted.top_scores = request.spec.logprobs.value_or(-1);
      wanted.params = request.spec.sampling;
      if (wanted.params.penalizes()) {
        wanted.prompt = request.spec.prompt;
        wanted.output.assign(sequence.tokens.begin() + request.prompt_tokens(), sequence.tokens.end());
      }
      const auto banned = sequence.text.Banned();
      wanted.banned.assign(banned.begin(), banned.end());
      wanted.position = sequence.tokens.size() - request.spec.prompt.size();
      wanted.completion = static_cast<uint64_t>(sequence.index);
    }
  }
  step.query_offsets.push_back(static_cast<int32_t>(step.tokens.size()));
  step.context_lengths.push_back(end);
  step.page_table.push_back(sequence.pages);
}

std::vector<Scheduler::Outcome> Scheduler::Commit(const BatchPlan& plan, StepResult result) {
  std::vector<Outcome> outcomes;
  std::vector<size_t> next_row(pools_.size(), 0);
  for (const auto& slice : plan.slices) {
    Sequence& sequence = *running_.at(slice.id);
    ActiveRequest& request = sequence.request;
    auto& rows = result.ranks[slice.rank].rows;
    size_t& row = next_row[slice.rank];
    std::string error;
    const int32_t begin = sequence.cached;
    sequence.cached += slice.tokens;
    for (int32_t position = begin; position < sequence.cached; ++position) {
      if (sequence.index == 0 && request.spec.prompt_logprobs && position + 1 < request.prompt_tokens() &&
          !request.prompt_scores[position]) {
        if (!rows[row].error.empty()) error = rows[row].error;
        request.prompt_scores[position] = rows[row++].scores.value_or(TokenScores{});
      }
    }
    for (int32_t page = begin / limits_.page_size; page < sequence.cached / limits_.page_size; ++page) {
      pools_[slice.rank].Publish(sequence.tokens, sequence.pages, page);
    }
    if (sequence.cached == static_cast<int32_t>(sequence.tokens.size())) {
      if (error.empty()) request.prompt_cached = true;
      outcomes.push_back({&sequence, std::move(rows[row++])});
      if (!error.empty()) outcomes.back().row.error = error;
    } else if (!error.empty()) {
      outcomes.push_back({&sequence, {error, 0, {}}});
    }
  }
  return outcomes;
}

double Scheduler::cache_usage() const {
  double held = 0, all = 0;
  for (const PagePool& pool : pools_) {
    held += pool.pages() - pool.available();
    all += pool.pages();
  }
  return held / all;
}

void Scheduler::CheckPages() const {
  for (size_t rank = 0; rank < pools_.size(); ++rank) {
    std::vector<absl::Span<const int32_t>> tables;
    for (const auto& [id, sequence] : running_) {
      if (sequence->rank == static_cast<int32_t>(rank)) tables.emplace_back(sequence->pages);
    }
    pools_[rank].CheckAgainst(tables);
  }
}

}  // namespace cohort::serving
