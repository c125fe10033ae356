// Plays an attention plan with sets in place of tensors.
#include <algorithm>
#include <deque>
#include <map>
#include <set>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "comm/check.h"
#include "parallel/sequence/attention_plan.h"

namespace cohort::parallel {
namespace {

// Portions of own pairs count apart.
using Share = std::pair<int, Portion>;  // the other block
using Shares = std::set<Share>;
using Message = std::tuple<Item, int, int>;  // item, block, keys

struct PlayedRank {
  size_t step = 0;
  bool posted = false;
  size_t heads = 0;                // peers whose tokens have arrived
  std::set<Message> held;          // keys and values, queries
  std::map<Message, Shares> made;  // outputs and gradients of other blocks
  Shares queries, keys;            // what own queries (output or dq) and own keys (dk, dv) have
  bool output_sent = false;        // kTokens
};

class PlanPlayer {
 public:
  PlanPlayer(const AttentionPlan& plan, const PairTable& pairs)
      : plan_(plan), pairs_(pairs), ranks_(plan.ranks) {}

  absl::Status Play() {
    for (int rank = 0; rank < plan_.ranks; ++rank) {
      ranks_[rank].held = {{Item::kKeyValue, Block(rank), -1}, {Item::kQuery, Block(rank), -1}};
    }
    for (bool moved = true; moved;) {
      moved = false;
      for (int rank = 0; rank < plan_.ranks; ++rank) {
        COHORT_ASSIGN_OR_RETURN(const bool advanced, Advance(rank));
        moved |= advanced;
      }
    }
    for (int rank = 0; rank < plan_.ranks; ++rank) {
      const size_t step = ranks_[rank].step;
      if (step < plan_.steps[rank].size()) return Wrong(rank, "waits for ever for what nobody sends");
    }
    for (const auto& [channel, messages] : under_way_) {
      if (!messages.empty()) return Wrong(std::get<1>(channel), "does not receive all that is sent to it");
    }
    for (int rank = 0; rank < plan_.ranks; ++rank) COHORT_RETURN_IF_ERROR(CheckEnd(rank));
    return absl::OkStatus();
  }

 private:
  int Block(int rank) const { return rank / plan_.way.head_parts; }
  bool SamePart(int a, int b) const { return a % plan_.way.head_parts == b % plan_.way.head_parts; }
  absl::Status Wrong(int rank, const std::string& what) const {
    return absl::InternalError(
        absl::StrCat("attention plan, rank ", rank, " at step ", ranks_[rank].step, ": ", what));
  }
  static Message MessageOf(const Transfer& transfer) {
    return {transfer.item, transfer.block, transfer.keys};
  }
  static bool IsMade(Item item) {
    return item == Item::kOutput || item == Item::kKeyValueGrad || item == Item::kQueryGrad;
  }

  absl::StatusOr<bool> Advance(int rank) {
    PlayedRank& self = ranks_[rank];
    if (self.step == plan_.steps[rank].size()) return false;
    const AttentionStep& step = plan_.steps[rank][self.step];
    if (!self.posted) {
      self.posted = true;
      for (const Transfer& send : step.sends) COHORT_RETURN_IF_ERROR(Post(rank, send));
      if (step.compute.has_value()) COHORT_RETURN_IF_ERROR(Compute(rank, *step.compute));
      return true;
    }
    const std::vector<Transfer> due = DueAt(plan_.steps[rank], self.step);
    for (const Transfer& receive : due) {
      if (under_way_[{receive.peer, rank, MessageOf(receive)}].empty()) return false;
    }
    for (const Transfer& receive : due) COHORT_RETURN_IF_ERROR(Take(rank, receive));
    self.posted = false;
    ++self.step;
    return true;
  }

  absl::Status Post(int rank, const Transfer& send) {
    PlayedRank& self = ranks_[rank];
    if (send.peer < 0 || send.peer >= plan_.ranks || send.peer == rank)
      return Wrong(rank, "sends to no other rank");
    Shares content;
    if (IsMade(send.item)) {
      const auto made = self.made.find(MessageOf(send));
      if (made == self.made.end())
        return Wrong(rank, absl::StrCat("sends results of block ", send.block, " it has not"));
      content = std::move(made->second);
      self.made.erase(made);
    } else if (send.item == Item::kTokens) {
      self.output_sent = true;
    } else if (send.item != Item::kHeads && !self.held.contains(MessageOf(send))) {
      return Wrong(rank, absl::StrCat("sends block ", send.block, " that it has not"));
    }
    under_way_[{rank, send.peer, MessageOf(send)}].push_back(std::move(content));
    return absl::OkStatus();
  }

  // Adds to `sum` what must not be in it yet.
  absl::Status AddTo(int rank, Shares& sum, const Shares& summand) {
    for (const Share& share : summand) {
      if (!sum.insert(share).second)
        return Wrong(rank, absl::StrCat("adds what came of block ", share.first, " twice"));
    }
    return absl::OkStatus();
  }

  absl::Status Take(int rank, const Transfer& receive) {
    PlayedRank& self = ranks_[rank];
    auto& messages = under_way_[{receive.peer, rank, MessageOf(receive)}];
    if (messages.empty()) return Wrong(rank, "receives one message twice");
    const Shares content = std::move(messages.front());
    messages.pop_front();
    const bool group = receive.item == Item::kHeads || receive.item == Item::kTokens;
    if (group ? Block(receive.peer) != Block(rank) : !SamePart(receive.peer, rank)) {
      return Wrong(rank, absl::StrCat("gets other heads or tokens than its own from rank ", receive.peer));
    }
    if (receive.item == Item::kHeads) {
      ++self.heads;
    } else if (!IsMade(receive.item)) {
      self.held.insert(MessageOf(receive));
    } else if (receive.block != Block(rank)) {
      return AddTo(rank, self.made[MessageOf(receive)], content);
    } else {
      return AddTo(rank, receive.item == Item::kKeyValueGrad ? self.keys : self.queries, content);
    }
    return absl::OkStatus();
  }

  absl::Status Compute(int rank, const Computation& compute) {
    PlayedRank& self = ranks_[rank];
    const int own = Block(rank), q = compute.queries, k = compute.keys;
    if (q < 0 || q >= pairs_.blocks() || k < 0 || k >= pairs_.blocks() || pairs_(q, k) == 0) {
      return Wrong(
          rank, absl::StrCat("computes queries of block ", q, " on keys of ", k, ", of which they see none"));
    }
    if (self.heads + 1 != static_cast<size_t>(plan_.way.head_parts))
      return Wrong(rank, "computes before it has its heads");
    if (self.output_sent) return Wrong(rank, "computes after it has sent its results");
    if (!self.held.contains({Item::kQuery, q, -1}) || !self.held.contains({Item::kKeyValue, k, -1})) {
      return Wrong(rank,
                   absl::StrCat("computes queries of block ", q, " on keys of ", k, " that it has not"));
    }
    if (q != own && k != own) return Wrong(rank, "computes what is another's altogether");
    if (q != k && compute.portion != Portion::kAll) return Wrong(rank, "divides pairs that are not its own");
    COHORT_RETURN_IF_ERROR(q == own
                               ? AddTo(rank, self.queries, {{k, compute.portion}})
                               : AddTo(rank, self.made[{MadeOfQueries(), q, k}], {{k, compute.portion}}));
    if (plan_.pass == Pass::kForward) return absl::OkStatus();
    return k == own ? AddTo(rank, self.keys, {{q, compute.portion}})
                    : AddTo(rank, self.made[{Item::kKeyValueGrad, k, -1}], {{q, compute.portion}});
  }

  Item MadeOfQueries() const { return plan_.pass == Pass::kForward ? Item::kOutput : Item::kQueryGrad; }

  absl::Status CheckEnd(int rank) const {
    const PlayedRank& self = ranks_[rank];
    const int own = Block(rank);
    if (!self.made.empty()) return Wrong(rank, "keeps results of another block");
    if (plan_.way.head_parts > 1 && !self.output_sent) return Wrong(rank, "keeps its heads' results");
    for (const bool of_queries : {true, false}) {
      if (!of_queries && plan_.pass == Pass::kForward) continue;
      const Shares& shares = of_queries ? self.queries : self.keys;
      for (int other = 0; other < pairs_.blocks(); ++other) {
        const bool all = shares.contains({other, Portion::kAll}),
                   earlier = shares.contains({other, Portion::kEarlierKeys}),
                   later = shares.contains({other, Portion::kLaterKeys});
        const bool due = (of_queries ? pairs_(own, other) : pairs_(other, own)) > 0;
        if (due ? !((all && !earlier && !later) || (!all && earlier && later)) : all || earlier || later) {
          return Wrong(rank, absl::StrCat("has not once what comes of its ", of_queries ? "queries" : "keys",
                                          " and block ", other));
        }
      }
    }
    return absl::OkStatus();
  }

  const AttentionPlan& plan_;
  const PairTable& pairs_;
  std::vector<PlayedRank> ranks_;
  std::map<std::tuple<int, int, Message>, std::deque<Shares>> under_way_;  // from, to, what
};

}  // namespace

absl::Status CheckAttentionPlan(const AttentionPlan& plan, const PairTable& pairs) {
  if (pairs.blocks() != plan.blocks() || plan.steps.size() != static_cast<size_t>(plan.ranks)) {
    return absl::InternalError(
        absl::StrCat("an attention plan of ", plan.blocks(), " blocks and pairs of ", pairs.blocks()));
  }
  return PlanPlayer(plan, pairs).Play();
}

}  // namespace cohort::parallel
