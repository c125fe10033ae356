#include "comm/membership/agreement.h"

#include <algorithm>

#include "comm/check.h"
#include "comm/membership/quorum.h"

namespace cohort::comm {
namespace {

using Kind = AgreementMessage::Kind;

// Rounds are unique to their leader: attempt, then place among the members.
constexpr int kPlaceBits = 24;

AgreementMessage Plain(Kind kind, uint64_t round) {
  AgreementMessage message;
  message.kind = kind;
  message.round = round;
  return message;
}

AgreementMessage Carrying(Kind kind, uint64_t round, const std::string& value) {
  AgreementMessage message = Plain(kind, round);
  message.value = value;
  return message;
}

}  // namespace

Agreement::Agreement(Options options, int64_t now) : options_(std::move(options)), last_now_(now) {
  std::sort(options_.members.begin(), options_.members.end());
  COHORT_CHECK(std::binary_search(options_.members.begin(), options_.members.end(), options_.self),
               "member %d takes no part", options_.self);
}

std::vector<int> Agreement::Suspects() const {
  std::set<int> both = lost_;
  both.insert(late_.begin(), late_.end());
  return {both.begin(), both.end()};
}

int Agreement::Leader() const {
  for (const int member : options_.members) {
    if (!Suspected(member)) return member;
  }
  return options_.self;
}

bool Agreement::HasQuorum(const std::set<int>& voters) const {
  if (!options_.quorum) return true;
  const Share share = ShareOf(voters, options_.members, options_.counted_below);
  if (share != Share::kHalf) return share == Share::kMore;
  return options_.tie ? options_.tie({voters.begin(), voters.end()})
                      : voters.contains(options_.members.front());
}

void Agreement::Broadcast(const AgreementMessage& message) {
  for (const int member : options_.members) {
    if (member != options_.self && !lost_.contains(member)) Send(member, message);
  }
}

// Also to those who have answered: they hear that the leader lives.
void Agreement::BroadcastPhase() {
  Broadcast(phase_ == Phase::kPreparing ? Plain(Kind::kPrepare, round_)
                                        : Carrying(Kind::kPropose, round_, value_));
  resend_at_ = clock_ + options_.patience / 4;
}

void Agreement::StartRound() {
  const auto place = std::find(options_.members.begin(), options_.members.end(), options_.self);
  round_ = ((std::max(highest_seen_, promised_) >> kPlaceBits) + 1) << kPlaceBits |
           static_cast<uint64_t>(place - options_.members.begin());
  promised_ = round_;
  phase_ = Phase::kPreparing;
  phase_since_ = clock_;
  votes_.clear();
  votes_[options_.self] = {options_.vote, {lost_.begin(), lost_.end()}};
  best_round_ = accepted_round_;
  value_ = accepted_value_;
  BroadcastPhase();
  Advance();
}

void Agreement::Advance() {
  if (decision_.has_value() || no_quorum_ || phase_ == Phase::kIdle) return;
  std::set<int> answered;
  if (phase_ == Phase::kPreparing) {
    for (const int member : options_.members) {
      if (votes_.contains(member)) {
        answered.insert(member);
      } else if (!Suspected(member)) {
        return;
      }
    }
    if (HasQuorum(answered)) {
      Propose();
    } else {
      GiveUp();
    }
    return;
  }
  for (const auto& [member, vote] : votes_) {
    if (!accepted_by_.contains(member) && !Suspected(member)) return;
  }
  if (HasQuorum(accepted_by_)) {
    Decide(value_, options_.quorum &&
                       ShareOf(accepted_by_, options_.members, options_.counted_below) == Share::kHalf);
  } else {
    GiveUp();
  }
}

void Agreement::Propose() {
  if (best_round_ == 0) value_ = options_.compose(votes_);
  phase_ = Phase::kProposing;
  phase_since_ = clock_;
  accepted_round_ = round_;
  accepted_value_ = value_;
  accepted_by_ = {options_.self};
  BroadcastPhase();
  Advance();
}

void Agreement::Decide(const std::string& value, bool tied) {
  if (decision_.has_value()) return;
  decision_ = value;
  tied_ = tied;
  phase_ = Phase::kIdle;
  // Everyone passes it on: whoever decided may be dead already.
  Broadcast(Deciding());
}

AgreementMessage Agreement::Deciding() const {
  AgreementMessage message = Carrying(Kind::kDecide, 0, *decision_);
  message.tied = tied_;
  return message;
}

void Agreement::GiveUp() {
  no_quorum_ = true;
  phase_ = Phase::kIdle;
  AgreementMessage message = Plain(Kind::kNoQuorum, promised_);
  message.suspects = Suspects();
  Broadcast(message);
}

void Agreement::Retry(int64_t now) {
  no_quorum_ = false;
  late_.clear();
  heard_.clear();
  phase_ = Phase::kIdle;
  retry_at_ = 0;
  leader_ = -1;
  last_now_ = now;
}

// Another one leads, or wants to: the lower of the two tries again sooner.
void Agreement::Pause(uint64_t seen) {
  highest_seen_ = std::max(highest_seen_, seen);
  if (phase_ == Phase::kIdle) return;
  phase_ = Phase::kIdle;
  const auto place = std::find(options_.members.begin(), options_.members.end(), options_.self);
  retry_at_ = clock_ + options_.patience / 4 * (place - options_.members.begin());
}

void Agreement::OnMessage(int from, const AgreementMessage& message) {
  if (from == options_.self || !std::binary_search(options_.members.begin(), options_.members.end(), from)) {
    return;
  }
  if (decision_.has_value()) {
    const bool asks = message.kind == Kind::kPrepare || message.kind == Kind::kPropose;
    if (asks) Send(from, Deciding());
    return;
  }
  if (no_quorum_ && message.kind != Kind::kDecide) {
    const bool asks = message.kind == Kind::kPrepare || message.kind == Kind::kPropose;
    if (asks) Send(from, Plain(Kind::kNoQuorum, promised_));
    return;
  }
  heard_[from] = clock_;
  late_.erase(from);
  switch (message.kind) {
    case Kind::kPrepare: {
      if (message.round < promised_) {
        Send(from, Plain(Kind::kRefuse, promised_));
        return;
      }
      if (message.round != round_) Pause(message.round);
      promised_ = message.round;
      AgreementMessage promise = Carrying(Kind::kPromise, message.round, accepted_value_);
      promise.accepted_round = accepted_round_;
      promise.vote = options_.vote;
      promise.suspects = {lost_.begin(), lost_.end()};
      Send(from, std::move(promise));
      return;
    }
    case Kind::kPropose:
      if (message.round < promised_) {
        Send(from, Plain(Kind::kRefuse, promised_));
        return;
      }
      if (message.round != round_) Pause(message.round);
      promised_ = accepted_round_ = message.round;
      accepted_value_ = message.value;
      Send(from, Plain(Kind::kAccept, message.round));
      return;
    case Kind::kPromise:
      if (phase_ != Phase::kPreparing || message.round != round_) return;
      votes_[from] = {message.vote, message.suspects};
      if (message.accepted_round > best_round_) {
        best_round_ = message.accepted_round;
        value_ = message.value;
      }
      Advance();
      return;
    case Kind::kAccept:
      if (phase_ != Phase::kProposing || message.round != round_) return;
      accepted_by_.insert(from);
      Advance();
      return;
    case Kind::kRefuse:
      if (message.round > round_) Pause(message.round);
      return;
    case Kind::kDecide:
      Decide(message.value, message.tied);
      return;
    case Kind::kNoQuorum:
      // It takes no part any more, and whom it could not reach is not waited for again.
      if (!options_.quorum) return;
      late_.insert(from);
      for (const int member : message.suspects) {
        if (member != options_.self) late_.insert(member);
      }
      return;
  }
}

void Agreement::OnLost(int member) {
  if (member == options_.self) return;
  lost_.insert(member);
  Advance();
}

void Agreement::LookForLate() {
  const auto silent = [&](int member, int64_t since) {
    const auto heard = heard_.find(member);
    const int64_t last = heard == heard_.end() ? since : std::max(since, heard->second);
    return clock_ - last > options_.patience;
  };
  if (leads()) {
    if (phase_ == Phase::kIdle) return;
    for (const int member : options_.members) {
      if (member == options_.self || Suspected(member)) continue;
      const bool answered =
          phase_ == Phase::kPreparing ? votes_.contains(member) : accepted_by_.contains(member);
      if (!answered && silent(member, phase_since_)) late_.insert(member);
    }
    return;
  }
  if (leader_ != Leader()) {
    leader_ = Leader();
    leader_since_ = clock_;
  }
  if (silent(leader_, leader_since_)) late_.insert(leader_);
}

void Agreement::Tick(int64_t now) {
  // A long gap is one in which this process did not run.
  clock_ += std::clamp<int64_t>(now - last_now_, 0, options_.patience / 8 + 1);
  last_now_ = now;
  if (decision_.has_value() || no_quorum_) return;
  LookForLate();
  if (!leads()) {
    phase_ = Phase::kIdle;
    return;
  }
  leader_ = options_.self;
  if (phase_ == Phase::kIdle) {
    if (clock_ >= retry_at_) StartRound();
    return;
  }
  Advance();
  if (phase_ != Phase::kIdle && clock_ >= resend_at_) BroadcastPhase();
}

}  // namespace cohort::comm
