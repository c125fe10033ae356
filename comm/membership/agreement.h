// How the members of a group agree on its next form, while any of them may die: a pure state machine.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace cohort::comm {

struct AgreementMessage {
  enum class Kind : uint8_t { kPrepare, kPromise, kRefuse, kPropose, kAccept, kDecide, kNoQuorum };
  Kind kind = Kind::kPrepare;
  uint64_t round = 0;
  uint64_t accepted_round = 0;  // promise: of the value accepted before, 0 where there is none
  std::string value;            // promise, propose, decide
  std::string vote;             // promise: what the member brings to the decision
  std::vector<int> suspects;    // promise: members that it has lost; no quorum: those that it suspects
  bool tied = false;            // decide: half of the members have accepted it, and not more
};

// Single-decree Paxos (Lamport, "Paxos made simple") with another notion of a quorum: the members that the
// leader does not suspect, all of them. So nobody who lives is left behind, and one survivor of many can decide. Two
// quorums have a member in common as long as some member neither dies nor is suspected in vain; where the network may
// split, `quorum` demands a majority of the members besides (or half of them with the lowest), and then no two
// decisions ever differ, whatever is lost, late or suspected. The leader is the lowest member not suspected. A value
// that somebody may have decided is proposed again, dead members and all: uniform agreement. Removing those is the
// next agreement's.
//
// Suspicions: OnLost is final. A member not heard for `patience` is suspected until it is heard again. Time is that
// during which this member was awake, so a process that was stopped does not blame the others for it; for the same
// reason the caller reads the clock, then delivers what has come, then calls Tick with what it read.
class Agreement {
 public:
  struct Vote {
    std::string text;
    std::vector<int> lost;  // members that the voter has no connection to
  };
  // The leader's choice of a value, from what the voters bring.
  using Compose = std::function<std::string(const std::map<int, Vote>& votes)>;
  struct Options {
    int self = 0;
    std::vector<int> members;  // with self
    bool quorum = false;
    std::vector<int> counted_below = {};                              // EditOptions::counted_below
    std::function<bool(const std::vector<int>& half)> tie = nullptr;  // EditOptions::tie
    int64_t patience = 0;                                             // nanoseconds
    std::string vote;
    Compose compose;
  };

  Agreement(Options options, int64_t now);

  void OnMessage(int from, const AgreementMessage& message);
  void OnLost(int member);
  void Tick(int64_t now);
  // After no_quorum(): tries again, with suspicions forgotten, losses and promises not.
  void Retry(int64_t now);

  // Messages to send, in order.
  std::vector<std::pair<int, AgreementMessage>> TakeOutbox() { return std::exchange(outbox_, {}); }
  const std::optional<std::string>& decision() const { return decision_; }
  // Half of the members have decided, with Options::quorum: where the other half may decide as well, as `tie` says yes to
  // it too, it can decide otherwise.
  bool tied() const { return tied_; }
  // This side has too few members to go on. Only with Options::quorum.
  bool no_quorum() const { return no_quorum_; }
  std::vector<int> Suspects() const;
  bool leads() const { return Leader() == options_.self; }
  // Tick is due at least this often.
  int64_t TickNanos() const { return options_.patience / 16 + 1; }

 private:
  enum class Phase : uint8_t { kIdle, kPreparing, kProposing };

  bool Suspected(int member) const { return lost_.contains(member) || late_.contains(member); }
  int Leader() const;
  bool HasQuorum(const std::set<int>& voters) const;
  void Send(int to, AgreementMessage message) { outbox_.emplace_back(to, std::move(message)); }
  void Broadcast(const AgreementMessage& message);
  void BroadcastPhase();
  void StartRound();
  // Moves the leader on where all that count have answered.
  void Advance();
  void Propose();
  void Decide(const std::string& value, bool tied);
  AgreementMessage Deciding() const;
  void GiveUp();
  void Pause(uint64_t seen);
  void LookForLate();

  Options options_;
  std::set<int> lost_, late_;
  std::map<int, int64_t> heard_;
  int64_t clock_ = 0;  // time awake
  int64_t last_now_;

  uint64_t promised_ = 0;
  uint64_t accepted_round_ = 0;
  std::string accepted_value_;

  // The leader's.
  Phase phase_ = Phase::kIdle;
  uint64_t round_ = 0;
  uint64_t highest_seen_ = 0;
  std::map<int, Vote> votes_;
  uint64_t best_round_ = 0;  // the highest accepted one among the promises, and its value
  std::string value_;
  std::set<int> accepted_by_;
  int64_t phase_since_ = 0;
  int64_t resend_at_ = 0;
  int64_t retry_at_ = 0;

  int leader_ = -1;
  int64_t leader_since_ = 0;
  std::optional<std::string> decision_;
  bool tied_ = false;
  bool no_quorum_ = false;
  std::vector<std::pair<int, AgreementMessage>> outbox_;
};

}  // namespace cohort::comm
