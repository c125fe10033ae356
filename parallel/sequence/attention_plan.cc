#include "parallel/sequence/attention_plan.h"

#include <algorithm>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace cohort::parallel {
namespace {

// The ring part of a plan, by block; peers are blocks.
using BlockSteps = std::vector<std::vector<AttentionStep>>;

class RingBuilder {
 public:
  RingBuilder(Pass pass, Moves moves, const PairTable& pairs)
      : pass_(pass), moves_(moves), pairs_(pairs), n_(pairs.blocks()), steps_(n_) {
    // Against the ring where that is shorter: of contiguous blocks queries need those before them only.
    int hops[2] = {0, 0};
    for (const int direction : {1, -1}) {
      direction_ = direction;
      for (int block = 0; block < n_; ++block) hops[direction < 0] += LastVisit(block);
    }
    direction_ = hops[1] < hops[0] ? -1 : 1;
  }

  BlockSteps Build() {
    for (int block = 0; block < n_; ++block) {
      if (Sees(block, 0)) At(block, 0).compute = {block, block};
      const int last = LastVisit(block);
      bool gradient_under_way = false;
      for (int t = 1; t <= last; ++t) {
        const int before = Host(block, t - 1), here = Host(block, t);
        Move(t - 1, before, here, {moves_ == Moves::kQueries ? Item::kQuery : Item::kKeyValue, block});
        if (gradient_under_way) Move(t, before, here, {Item::kKeyValueGrad, block});
        if (!Sees(block, t)) continue;
        if (moves_ == Moves::kQueries) {
          At(here, t).compute = {block, here};
          const Item result = pass_ == Pass::kForward ? Item::kOutput : Item::kQueryGrad;
          Move(t + 1, here, block, {.item = result, .block = block, .keys = here, .slack = 1});
        } else {
          At(here, t).compute = {here, block};
          gradient_under_way = pass_ == Pass::kBackward;
        }
      }
      if (gradient_under_way) Move(last + 1, Host(block, last), block, {Item::kKeyValueGrad, block});
    }
    for (int block = 0; block < n_; ++block) HideTheEnd(block);
    return std::move(steps_);
  }

 private:
  // Where a moving block is after t steps.
  int Host(int block, int t) const { return ((block + direction_ * t) % n_ + n_) % n_; }
  bool Sees(int block, int t) const {
    const int host = Host(block, t);
    return (moves_ == Moves::kQueries ? pairs_(block, host) : pairs_(host, block)) > 0;
  }
  int LastVisit(int block) const {
    int t = n_ - 1;
    while (t > 0 && !Sees(block, t)) --t;
    return t;
  }
  AttentionStep& At(int block, int t) {
    if (steps_[block].size() <= static_cast<size_t>(t)) steps_[block].resize(t + 1);
    return steps_[block][t];
  }
  void Move(int t, int from, int to, Transfer what) {
    what.peer = to;
    At(from, t).sends.push_back(what);
    what.peer = from;
    At(to, t).receives.push_back(what);
  }
  // Own pairs in two goes where this rank would wait for the last thing it receives with nothing to compute.
  void HideTheEnd(int block) {
    std::vector<AttentionStep>& steps = steps_[block];
    for (size_t t = steps.size(); t-- > 1;) {
      if (steps[t].receives.empty()) continue;
      if (!steps[t].compute.has_value() && steps[0].compute.has_value()) {
        steps[0].compute->portion = Portion::kEarlierKeys;
        steps[t].compute = {block, block, Portion::kLaterKeys};
      }
      return;
    }
  }

  const Pass pass_;
  const Moves moves_;
  const PairTable& pairs_;
  const int n_;
  int direction_ = 1;
  BlockSteps steps_;
};

}  // namespace

std::vector<Transfer> DueAt(const std::vector<AttentionStep>& steps, size_t step) {
  std::vector<Transfer> due;
  for (size_t begun = 0; begun <= step; ++begun) {
    for (const Transfer& receive : steps[begun].receives) {
      if (std::min(begun + receive.slack, steps.size() - 1) == step) due.push_back(receive);
    }
  }
  return due;
}

std::string DebugString(const AttentionWay& way, int ranks) {
  if (way.head_parts == ranks && ranks > 1) return "ulysses";
  const char* ring = way.moves == Moves::kQueries ? "token-ring" : "ring";
  return way.head_parts == 1 ? ring : absl::StrCat(way.head_parts, " x ulysses in ", ring);
}

absl::StatusOr<AttentionWay> ParseAttentionWay(absl::string_view name, int ranks) {
  constexpr absl::string_view kMix = " x ulysses in ";
  AttentionWay way;
  absl::string_view ring = name;
  if (name == "ulysses") {
    way.head_parts = ranks;
    return way;
  }
  if (const size_t at = name.find(kMix); at != absl::string_view::npos) {
    if (!absl::SimpleAtoi(name.substr(0, at), &way.head_parts) || way.head_parts < 1) ring = "";
    if (!ring.empty()) ring = name.substr(at + kMix.size());
  }
  if (ring != "ring" && ring != "token-ring") {
    return absl::InvalidArgumentError(
        absl::StrCat("attention over a context group goes by ring, token-ring, ulysses, or a mix such as '2",
                     kMix, "ring', not '", name, "'"));
  }
  way.moves = ring == "ring" ? Moves::kKeysAndValues : Moves::kQueries;
  if (ranks % way.head_parts != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        way.head_parts, " ranks that exchange heads do not divide the ", ranks, " of a context group"));
  }
  return way;
}

PairTable::PairTable(const TokenSplit& split, int ranks_a_block)
    : blocks_(split.ranks() / ranks_a_block), pairs_(blocks_ * blocks_, 0) {
  for (int q = 0; q < blocks_ * ranks_a_block; ++q) {
    for (int k = 0; k < blocks_ * ranks_a_block; ++k) {
      pairs_[q / ranks_a_block * blocks_ + k / ranks_a_block] += split.VisiblePairs(q, k);
    }
  }
}

absl::StatusOr<AttentionPlan> MakeAttentionPlan(Pass pass, AttentionWay way, int ranks,
                                                const PairTable& pairs) {
  const int parts = way.head_parts;
  if (ranks < 1 || parts < 1 || ranks % parts != 0) {
    return absl::InvalidArgumentError(absl::StrCat("attention over ", ranks, " ranks, of which ", parts,
                                                   " exchange heads: these must divide those"));
  }
  if (pairs.blocks() * parts != ranks) {
    return absl::InvalidArgumentError(absl::StrCat("visible pairs of ", pairs.blocks(), " blocks for ", ranks,
                                                   " ranks, of which ", parts, " hold a block together"));
  }
  AttentionPlan plan{pass, way, ranks, std::vector<std::vector<AttentionStep>>(ranks)};
  const BlockSteps ring = RingBuilder(pass, way.moves, pairs).Build();
  for (int rank = 0; rank < ranks; ++rank) {
    std::vector<AttentionStep>& steps = plan.steps[rank];
    AttentionStep heads, tokens;
    for (int i = 1; i < parts; ++i) {
      const int group = rank / parts * parts, to = group + (rank + i) % parts,
                from = group + (rank - i + parts) % parts;
      heads.sends.push_back({Item::kHeads, -1, -1, to}),
          heads.receives.push_back({Item::kHeads, -1, -1, from});
      tokens.sends.push_back({Item::kTokens, -1, -1, to}),
          tokens.receives.push_back({Item::kTokens, -1, -1, from});
    }
    if (parts > 1) steps.push_back(std::move(heads));
    for (AttentionStep step : ring[rank / parts]) {
      for (Transfer& transfer : step.sends) transfer.peer = transfer.peer * parts + rank % parts;
      for (Transfer& transfer : step.receives) transfer.peer = transfer.peer * parts + rank % parts;
      steps.push_back(std::move(step));
    }
    if (parts > 1) steps.push_back(std::move(tokens));
  }
  return plan;
}

}  // namespace cohort::parallel
