#include "parallel/sequence/attention_time.h"

#include <algorithm>
#include <limits>
#include <map>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "comm/check.h"
#include "parallel/sequence/head_parts.h"

namespace cohort::parallel {
namespace {

constexpr double kNeverOver = std::numeric_limits<double>::infinity();

// When each link has carried what was given to it. A message takes all links of its way at once; links never idle while
// they have something to carry, in whatever order.
class SimulatedNetwork {
 public:
  SimulatedNetwork(const AttentionMachine& machine, int ranks)
      : machine_(machine), ranks_(ranks), busy_until_(2 * ranks, 0) {}

  // Sent at `time`; returns when it is there.
  double Send(int from, int to, int64_t bytes, double time) {
    const double seconds = static_cast<double>(bytes) / machine_.bytes_per_second;
    if (machine_.wiring == Wiring::kSwitch) {
      return std::max(Carry(from, time, seconds), Carry(ranks_ + to, time, seconds)) + machine_.latency;
    }
    const int up = (to - from + ranks_) % ranks_, down = ranks_ - up;
    const bool upwards = up < down || (up == down && carried_[0] <= carried_[1]);
    carried_[upwards ? 0 : 1] += seconds;
    // Link r goes from rank r to the next, link ranks + r to the one before.
    double arrival = time;
    for (int hop = 0, at = from; hop < std::min(up, down); ++hop) {
      arrival = std::max(arrival, Carry(upwards ? at : ranks_ + at, time, seconds));
      at = (at + (upwards ? 1 : ranks_ - 1)) % ranks_;
    }
    return arrival + machine_.latency * std::min(up, down);
  }

 private:
  double Carry(int link, double time, double seconds) {
    return busy_until_[link] = std::max(busy_until_[link], time) + seconds;
  }

  const AttentionMachine& machine_;
  const int ranks_;
  std::vector<double> busy_until_;
  double carried_[2] = {0, 0};  // of a ring, each way: messages that could take either take the other
};

double PortionOf(const Computation& compute) { return compute.portion == Portion::kAll ? 1 : 0.5; }

}  // namespace

absl::StatusOr<int64_t> MessageBytes(const AttentionPlan& plan, int sender, const Transfer& send,
                                     const TokenSplit& split, const AttentionShape& shape) {
  const int parts = plan.way.head_parts;
  COHORT_ASSIGN_OR_RETURN(const auto heads, DivideHeads(shape.heads, shape.kv_heads, parts));
  // kHeads are the peer's; all else this rank's.
  const HeadPart& part = heads[(send.item == Item::kHeads ? send.peer : sender) % parts];
  const int64_t q = part.heads() * shape.head_dim, kv = static_cast<int64_t>(part.kv.size()) * shape.head_dim;
  const bool forward = plan.pass == Pass::kForward;
  int64_t tokens = 0;
  for (int i = 0; send.block >= 0 && i < parts; ++i) tokens += split.tokens(send.block * parts + i);
  const int64_t element = shape.element_bytes, state = shape.state_bytes;
  switch (send.item) {
    case Item::kHeads:
      return split.tokens(sender) * (forward ? q + 2 * kv : q) * element;
    case Item::kTokens:
      return split.tokens(send.peer) * (forward ? q : q + 2 * kv) * element;
    case Item::kKeyValue:
      return tokens * 2 * kv * element;
    case Item::kQuery:
      return tokens * (forward ? q * element : 2 * q * element + 2 * part.heads() * state);
    case Item::kOutput:
      return tokens * (q * element + part.heads() * state);
    case Item::kKeyValueGrad:
      return tokens * 2 * kv * state;
    case Item::kQueryGrad:
      return tokens * q * state;
  }
  return absl::InternalError("no such item");
}

absl::StatusOr<AttentionTime> SimulateAttention(const AttentionPlan& plan, const TokenSplit& split,
                                                const AttentionShape& shape,
                                                const AttentionMachine& machine) {
  const PairTable pairs(split, plan.way.head_parts);
  const double flops = (plan.pass == Pass::kForward ? kForwardFlopsPerElement : kBackwardFlopsPerElement) *
                       static_cast<double>(shape.heads / plan.way.head_parts * shape.head_dim);
  struct Rank {
    size_t step = 0;
    bool begun = false;
    double begin = 0, computed = 0, compute = 0, end = 0;
    int64_t sent = 0;
  };
  using Message = std::tuple<int, int, Item, int, int>;
  std::vector<Rank> ranks(plan.ranks);
  std::map<Message, double> arrivals;
  SimulatedNetwork network(machine, plan.ranks);
  for (;;) {
    // The step that begins first among those that can.
    int next = -1;
    bool advanced = false;
    for (int r = 0; r < plan.ranks; ++r) {
      Rank& rank = ranks[r];
      if (rank.step == plan.steps[r].size()) continue;
      if (!rank.begun) {
        if (next < 0 || rank.begin < ranks[next].begin) next = r;
        continue;
      }
      double end = rank.computed;
      for (const Transfer& receive : DueAt(plan.steps[r], rank.step)) {
        const auto arrival = arrivals.find({receive.peer, r, receive.item, receive.block, receive.keys});
        end = arrival == arrivals.end() ? kNeverOver : std::max(end, arrival->second);
      }
      if (end == kNeverOver) continue;
      rank.begin = rank.end = end, rank.begun = false, advanced = true;
      ++rank.step;
    }
    if (advanced) continue;  // it may begin sooner than the one found
    if (next < 0) break;
    Rank& rank = ranks[next];
    const AttentionStep& step = plan.steps[next][rank.step];
    rank.begun = true;
    int64_t handled = 0;
    for (const Transfer& send : step.sends) {
      COHORT_ASSIGN_OR_RETURN(const int64_t bytes, MessageBytes(plan, next, send, split, shape));
      arrivals[{next, send.peer, send.item, send.block, send.keys}] =
          network.Send(next, send.peer, bytes, rank.begin);
      rank.sent += bytes;
      handled += bytes;
    }
    for (Transfer receive : step.receives) {
      const int sender = std::exchange(receive.peer, next);
      COHORT_ASSIGN_OR_RETURN(const int64_t bytes, MessageBytes(plan, sender, receive, split, shape));
      handled += bytes;
    }
    double seconds = 0;
    if (step.compute.has_value()) {
      seconds = PortionOf(*step.compute) * flops *
                static_cast<double>(pairs(step.compute->queries, step.compute->keys)) /
                machine.flops_per_second;
    }
    rank.compute += seconds;
    rank.computed = rank.begin + seconds + static_cast<double>(handled) * machine.host_seconds_per_byte;
  }
  AttentionTime time;
  for (int r = 0; r < plan.ranks; ++r) {
    if (ranks[r].step < plan.steps[r].size())
      return absl::InternalError(absl::StrCat("rank ", r, " waits for ever"));
    time.seconds = std::max(time.seconds, ranks[r].end);
    time.most_compute = std::max(time.most_compute, ranks[r].compute);
    time.most_sent = std::max(time.most_sent, ranks[r].sent);
  }
  return time;
}

absl::StatusOr<AttentionChoice> ChooseAttention(const TokenSplit& split, const AttentionShape& shape,
                                                const AttentionMachine& machine) {
  const int n = split.ranks();
  AttentionChoice choice;
  for (int parts = 1; parts <= n; ++parts) {
    if (n % parts != 0 || shape.heads % parts != 0) continue;
    const PairTable pairs(split, parts);
    AttentionOption option;
    for (const Pass pass : {Pass::kForward, Pass::kBackward}) {
      AttentionWay fastest;
      AttentionTime least{kNeverOver};
      for (const Moves moves : {Moves::kKeysAndValues, Moves::kQueries}) {
        if (parts == n && moves == Moves::kQueries) continue;  // nothing moves
        COHORT_ASSIGN_OR_RETURN(const AttentionPlan plan, MakeAttentionPlan(pass, {moves, parts}, n, pairs));
        COHORT_ASSIGN_OR_RETURN(const AttentionTime time, SimulateAttention(plan, split, shape, machine));
        if (std::tie(time.seconds, time.most_sent) < std::tie(least.seconds, least.most_sent)) {
          least = time, fastest = plan.way;
        }
      }
      (pass == Pass::kForward ? option.forward : option.backward) = fastest;
      option.seconds += least.seconds, option.most_sent += least.most_sent;
    }
    choice.options.push_back(option);
  }
  std::stable_sort(choice.options.begin(), choice.options.end(), [](const auto& a, const auto& b) {
    return std::tie(a.seconds, a.most_sent) < std::tie(b.seconds, b.most_sent);
  });
  choice.best = choice.options.front();
  const auto describe = [&](const AttentionOption& option) {
    const std::string forward = DebugString(option.forward, n), backward = DebugString(option.backward, n);
    return absl::StrFormat("%s (%.3g ms, a rank sends %.3g MB)",
                           forward == backward ? forward : absl::StrCat(forward, ", backward ", backward),
                           option.seconds * 1e3, static_cast<double>(option.most_sent) / 1e6);
  };
  choice.reason = describe(choice.best);
  for (size_t i = 1; i < choice.options.size(); ++i) {
    absl::StrAppend(&choice.reason, i == 1 ? " rather than " : ", ", describe(choice.options[i]));
  }
  absl::StrAppend(&choice.reason,
                  absl::StrFormat("; a token's keys and values are %d elements, its query and output %d",
                                  2 * shape.kv_heads * shape.head_dim, 2 * shape.heads * shape.head_dim));
  return choice;
}

}  // namespace cohort::parallel
