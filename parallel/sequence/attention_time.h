// What an attention plan costs: bytes, and time on given links. And the choice of a way by it. Pure.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "parallel/sequence/attention_plan.h"

namespace cohort::parallel {

struct AttentionShape {
  int64_t heads = 1, kv_heads = 1, head_dim = 64;
  int64_t element_bytes = 2;  // of q, k, v, y
  int64_t state_bytes = 4;    // of lse and of gradients that are still added to
};

// How ranks are joined. All links carry both ways at once.
enum class Wiring : uint8_t {
  kSwitch,  // each has one link to all others; what it sends shares the way out, what it receives the way in
  kRing,    // each has a link to either neighbour; a message takes the shorter way, link after link
};

struct AttentionMachine {
  Wiring wiring = Wiring::kSwitch;
  double latency = 0;           // seconds a message and link
  double bytes_per_second = 0;  // of a link, each way
  double flops_per_second = 0;  // of a rank
  // Of a rank's own time, for each byte that it sends or receives: where the processor that computes also copies.
  double host_seconds_per_byte = 0;
};

// A query and a key of one head: q.k and p v, two operations an element each; the backward makes the scores again and
// has four more products.
inline constexpr double kForwardFlopsPerElement = 4, kBackwardFlopsPerElement = 10;

// Bytes of one message of the plan. `split` is over the plan's ranks.
absl::StatusOr<int64_t> MessageBytes(const AttentionPlan& plan, int sender, const Transfer& send,
                                     const TokenSplit& split, const AttentionShape& shape);

struct AttentionTime {
  double seconds = 0;       // until the last rank is done
  double most_compute = 0;  // of one rank
  int64_t most_sent = 0;    // bytes of one rank
};

// Steps begin when they can; links carry one message after the other, computing and carrying go on at once but for what
// carrying takes of the ranks' own time.
absl::StatusOr<AttentionTime> SimulateAttention(const AttentionPlan& plan, const TokenSplit& split,
                                                const AttentionShape& shape, const AttentionMachine& machine);

struct AttentionOption {
  AttentionWay forward, backward;  // head_parts are the same
  double seconds = 0;              // of both passes
  int64_t most_sent = 0;           // bytes of one rank in both
};

struct AttentionChoice {
  AttentionOption best;
  std::vector<AttentionOption> options;  // all that are possible, fastest first
  std::string reason;  // one line: what was chosen, what moves, and what it was compared with
};

// Every number of head parts that divides ranks and heads, and for each pass whatever is faster to move; the fastest.
// Between equals the fewest bytes, then the fewest head parts. Grouped-query attention makes keys and values small and
// queries not, so that mostly the former move.
absl::StatusOr<AttentionChoice> ChooseAttention(const TokenSplit& split, const AttentionShape& shape,
                                                const AttentionMachine& machine);

}  // namespace cohort::parallel
