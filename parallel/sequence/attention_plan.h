// Who sends what to whom, and which queries meet which keys when, where a context group computes attention together.
// Plans are values: made by a pure function, proved by CheckAttentionPlan, priced by SimulateAttention (attention_time.h)
// and walked by the cores (ring_core.h).
//
// Legend. n ranks hold tokens of the same sequences. `head_parts` neighbours of them first exchange tokens for heads
// (Ulysses), and then hold one block of tokens together, each rank a part of its heads: rank = block x head_parts +
// part. The n / head_parts blocks meet in a ring, where one thing moves and the other stays:
//
//   keys and values move   ring attention (Liu et al., 2023): block k visits rank after rank; in the backward its
//                          gradient follows a step behind and goes home at the end
//   queries move           TokenRing (Wang et al., 2024): block q visits rank after rank, and what each of them makes
//                          of it (y, lse) goes straight back to its owner; in the backward the same with dq
//
// Both in one direction, past those ranks only that can see something: a rank whose keys no later query sees sends
// nothing.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "parallel/sequence/token_split.h"

namespace cohort::parallel {

enum class Pass : uint8_t { kForward, kBackward };
enum class Moves : uint8_t { kKeysAndValues, kQueries };

struct AttentionWay {
  Moves moves = Moves::kKeysAndValues;
  int head_parts = 1;
  bool operator==(const AttentionWay&) const = default;
};
// "ring", "token-ring", "ulysses" or "2 x ulysses in token-ring".
std::string DebugString(const AttentionWay& way, int ranks);
// From those names. INVALID_ARGUMENT says what there is, or that heads cannot be exchanged among so many of the ranks.
absl::StatusOr<AttentionWay> ParseAttentionWay(absl::string_view name, int ranks);

// Visible pairs of a query block and a key block: blocks x blocks.
class PairTable {
 public:
  // Of the ranks of the split, or of blocks of so many neighbours.
  explicit PairTable(const TokenSplit& split, int ranks_a_block = 1);

  int blocks() const { return blocks_; }
  int64_t operator()(int query_block, int key_block) const {
    return pairs_[query_block * blocks_ + key_block];
  }

 private:
  int blocks_;
  std::vector<int64_t> pairs_;
};

// X(enumerator, what a message is).
#define COHORT_ATTENTION_ITEMS(X)                                                \
  X(kHeads, "tokens of this rank, heads of the peer: q, k, v; backward: dy")     \
  X(kTokens, "heads of this rank, tokens of the peer: y; backward: dq, dk, dv")  \
  X(kKeyValue, "k, v of `block`")                                                \
  X(kQuery, "q of `block`; backward: q, dy, lse, delta")                         \
  X(kOutput, "y, lse of `block` after the keys of `keys` alone")                 \
  X(kKeyValueGrad, "the sum of dk, dv of `block` over the ranks it has visited") \
  X(kQueryGrad, "dq of `block` after the keys of `keys` alone")

enum class Item : uint8_t {
#define COHORT_X(enumerator, meaning) enumerator,
  COHORT_ATTENTION_ITEMS(COHORT_X)
#undef COHORT_X
};

struct Transfer {
  Item item = Item::kKeyValue;
  int block = -1;  // none for kHeads, kTokens
  int keys = -1;   // kOutput, kQueryGrad
  int peer = 0;
  int slack = 0;  // it is over so many steps later than its own (with the last step at the latest)
  bool operator==(const Transfer&) const = default;
};

// Own queries and own keys may be computed in two goes, earlier and later keys, about half of the pairs each: the second
// hides what comes last.
enum class Portion : uint8_t { kAll, kEarlierKeys, kLaterKeys };

struct Computation {
  int queries = 0, keys = 0;  // blocks
  Portion portion = Portion::kAll;
};

// All sends and receives begin with the step and are over when it ends. What is sent was there when it began; what is
// received is of use in the next step (outputs and gradients are added at the end of this one). Results on their way
// home have a step of slack: nothing waits for them but the end.
struct AttentionStep {
  std::vector<Transfer> sends, receives;
  std::optional<Computation> compute;
};

// What this rank must have received at the end of a step, in the order in which it is added.
std::vector<Transfer> DueAt(const std::vector<AttentionStep>& steps, size_t step);

struct AttentionPlan {
  Pass pass = Pass::kForward;
  AttentionWay way;
  int ranks = 1;
  std::vector<std::vector<AttentionStep>> steps;  // by rank
  int blocks() const { return ranks / way.head_parts; }
};

// INVALID_ARGUMENT where head_parts does not divide the ranks, or the table has not a block for each group of them.
absl::StatusOr<AttentionPlan> MakeAttentionPlan(Pass pass, AttentionWay way, int ranks,
                                                const PairTable& pairs);

// Plays the plan: every visible pair of blocks is computed once by every head part and contributes once to its output
// or gradients, at their owners; nothing invisible is computed; what is sent is there and is received by whom it is
// sent to; every rank gets to its end. INTERNAL names what is wrong and where.
absl::Status CheckAttentionPlan(const AttentionPlan& plan, const PairTable& pairs);

}  // namespace cohort::parallel
