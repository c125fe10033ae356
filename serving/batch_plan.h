// What the next step computes, as a value: a pure function of the queue, the cache and the limits.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace cohort::serving {

struct PlanLimits {
  int32_t page_size = 0;
  int32_t tokens_per_step = 0;  // of one rank; more than sequences_per_rank, so that prefill always advances
  int32_t sequences_per_rank = 0;
};

// A sequence that holds pages on a rank. Its next token needs all of its `tokens` in the cache.
struct RunningSequence {
  int64_t id = 0;  // order of arrival: the smaller is the older
  int32_t rank = 0;
  int32_t tokens = 0;               // prompt and output so far
  int32_t cached = 0;               // of these, the first so many are in the cache; < tokens
  absl::Span<const int32_t> pages;  // held, on its rank
  int32_t remaining() const { return tokens - cached; }
};

// What the cache of one rank already has of a waiting sequence's beginning.
struct CachedPrefix {
  int32_t tokens = 0;      // whole pages; fewer than the sequence has
  int32_t idle_pages = 0;  // of these pages, the ones that nobody holds
};

struct WaitingSequence {
  int64_t id = 0;
  int32_t tokens = 0;
  // Held back for its own good: a sibling computes their common prompt just now. Others may overtake it.
  bool blocked = false;
  std::vector<CachedPrefix> prefix;  // one a rank; empty: nothing anywhere
};

struct PlanInput {
  PlanLimits limits;
  std::vector<RunningSequence> running;  // ascending ids
  std::vector<WaitingSequence>
      waiting;  // ascending ids; more of the queue than can be admitted is not needed
  std::vector<int32_t> available_pages;  // one a rank
};

// In the order in which they are carried out.
struct BatchPlan {
  struct Admission {
    int64_t id = 0;
    int32_t rank = 0;
    int32_t cached = 0;  // tokens taken over from the prefix
  };
  struct Slice {
    int64_t id = 0;
    int32_t rank = 0;
    int32_t tokens = 0;     // computed in this step: the next after the cached ones
    int32_t new_pages = 0;  // allocated first
  };
  std::vector<int64_t> preempted;  // give up all their pages and wait again; computed anew later
  std::vector<Admission> admitted;
  std::vector<Slice> slices;  // by rank, then decodes before prefills, then by id
};

// Policy, in this order:
//  1. Decodes (one token left to compute) come first, oldest first. One that needs a page where none is
//  available
//     takes those of the youngest sequence of its rank, which is preempted; the youngest preempts itself.
//  2. What is left of a rank's tokens goes to prefills under way, oldest first, in chunks.
//  3. Then waiting sequences are admitted strictly in order: the first that fits nowhere holds up all behind
//  it,
//     so nobody starves. It needs pages for all its tokens at once, and one spare page for every sequence
//     running there, so that admissions do not cause preemptions; a rank that preempts admits nobody in that
//     step. Among ranks with room: most cached prefix, then fewest sequences, then most pages.
// Every admitted prompt has all its pages from the start. The oldest sequence of a rank is never preempted
// for another, and a sequence alone on its rank always fits if it is no longer than the cache, which the
// caller checks before it queues one.
BatchPlan MakeBatchPlan(const PlanInput& input);

// Pages that hold `tokens` tokens.
inline int32_t PagesFor(int32_t tokens, int32_t page_size) { return (tokens + page_size - 1) / page_size; }

}  // namespace cohort::serving
