// The books of the engine: who waits, who runs, who holds which page. Makes steps out of plans.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "serving/batch_plan.h"
#include "serving/model_runner.h"
#include "serving/page_pool.h"
#include "serving/sequence.h"

namespace cohort::serving {

// Owned by the engine's thread; not thread-safe. One step is Plan, Prepare, the model, Commit. Sequences are
// the engine's; one must be removed before it dies.
class Scheduler {
 public:
  // A token that the model made for a sequence, or why it could not.
  struct Outcome {
    Sequence* sequence;
    RowResult row;
  };

  Scheduler(const RunnerInfo& info, PlanLimits limits, bool share_prefixes);

  // The longest sequence that can ever be served: the model's context or the whole cache of a rank.
  int32_t capacity() const { return capacity_; }

  void Add(Sequence& sequence);
  // Takes the sequence out, and its pages at once.
  void Remove(Sequence& sequence);
  bool HasWork() const { return !waiting_.empty() || !running_.empty(); }

  // State as the planner sees it. The spans in it hold until the next change.
  PlanInput Input() const;
  // Carries out preemptions, admissions and allocations, and describes what the ranks shall compute.
  Step Prepare(const BatchPlan& plan);
  // The step is over: its tokens are in the cache. Returns what was drawn, in the plan's order; scores of
  // prompt tokens go into their requests.
  std::vector<Outcome> Commit(const BatchPlan& plan, StepResult result);

  size_t running() const { return running_.size(); }
  size_t waiting() const { return waiting_.size(); }
  double cache_usage() const;                                 // share of pages that are held
  int64_t prefix_queries() const { return prefix_queries_; }  // prompt tokens looked up so far
  int64_t prefix_hits() const { return prefix_hits_; }        // of these, found
  // Aborts unless pages and sequences agree. For tests.
  void CheckPages() const;

 private:
  int32_t PrefixLimit(const Sequence& sequence) const;
  void AddSlice(const Sequence& sequence, int32_t tokens, RankStep& step) const;

  PlanLimits limits_;
  int32_t capacity_;
  std::vector<PagePool> pools_;  // one a rank
  std::map<int64_t, Sequence*> waiting_, running_;
  int64_t prefix_queries_ = 0, prefix_hits_ = 0;
};

}  // namespace cohort::serving
