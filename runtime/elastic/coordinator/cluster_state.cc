// Commands, events and leases; what commands do is in the other parts.
#include "runtime/elastic/coordinator/cluster_state.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/elastic/coordinator/policy.h"
#include "runtime/elastic/coordinator/request_checks.h"

namespace cohort::cluster {
Outcome ClusterState::Apply(const v1::ClusterCommand& command, absl::Time now) {
  Turn turn;
  turn.now = absl::FromUnixMicros(absl::ToUnixMicros(now));  // as the record has it
  std::optional<v1::ClusterCommand> instead;
  // Requests of clients are checked, here and not where they arrive, so that no path leads around it.
  const auto apply = [&](const auto& request, auto method) {
    turn.outcome.status = CheckRequest(request);
    if (turn.outcome.status.ok()) (this->*method)(request, turn);
  };
  switch (command.command_case()) {
    case v1::ClusterCommand::kBegin:
      Begin(turn);
      break;
    case v1::ClusterCommand::kTick:
      Tick(turn, instead.emplace());
      break;
    case v1::ClusterCommand::kExpire:
      Expire(command.expire(), turn);
      break;
    case v1::ClusterCommand::kJoin:
      apply(command.join(), &ClusterState::Join);
      break;
    case v1::ClusterCommand::kLeave:
      apply(command.leave(), &ClusterState::Leave);
      break;
    case v1::ClusterCommand::kRequestLeave:
      apply(command.request_leave(), &ClusterState::RequestLeave);
      break;
    case v1::ClusterCommand::kRenew:
      apply(command.renew(), &ClusterState::Renew);
      if (turn.changed) instead.emplace().mutable_renew()->set_member_id(command.renew().member_id());
      break;
    case v1::ClusterCommand::kAdvanceEpoch:
      apply(command.advance_epoch(), &ClusterState::AdvanceEpoch);
      break;
    case v1::ClusterCommand::kBoardPost:
      apply(command.board_post(), &ClusterState::BoardPost);
      break;
    case v1::ClusterCommand::kBoardWithdraw:
      apply(command.board_withdraw(), &ClusterState::BoardWithdraw);
      break;
    case v1::ClusterCommand::kBoardAnswer:
      apply(command.board_answer(), &ClusterState::BoardAnswer);
      break;
    case v1::ClusterCommand::kRendezvousPut:
      apply(command.rendezvous_put(), &ClusterState::RendezvousPut);
      break;
    case v1::ClusterCommand::kTie:
      turn.outcome.status = CheckRequest(command.tie());
      if (turn.outcome.status.ok()) Tie(command.tie(), turn, instead.emplace());
      break;
    case v1::ClusterCommand::kSettle:
      Settle(command.settle(), turn);
      break;
    case v1::ClusterCommand::kReport:
      apply(command.report(), &ClusterState::Report);
      break;
    case v1::ClusterCommand::COMMAND_NOT_SET:
      turn.outcome.status = absl::InvalidArgumentError("a command of no known kind");
      break;
  }
  if (turn.changed) {
    waiting_ = -1;
    turn.outcome.record = instead.has_value() ? *std::move(instead) : command;
    turn.outcome.record->set_time_micros(absl::ToUnixMicros(turn.now));
  }
  return std::move(turn.outcome);
}

void ClusterState::Emit(v1::Event event, Turn& turn) {
  event.set_revision(next_revision_++);
  event.set_time(UnixSeconds(turn.now));
  event.set_epoch(epoch_.number());
  events_.push_back(event);
  if (events_.size() > policy::kEventsKept) events_.pop_front();
  turn.outcome.events.push_back(std::move(event));
  turn.changed = true;
}

void ClusterState::Emit(v1::EventKind kind, const v1::Member* member, const std::string& words, Turn& turn) {
  v1::Event event;
  event.set_kind(kind);
  if (member != nullptr) {
    event.set_member_id(member->id());
    event.set_member(member->name());
  }
  event.set_words(words);
  Emit(std::move(event), turn);
}

void ClusterState::Begin(Turn& turn) {
  // An id of a state that was lost must not be somebody else's in the next one, which may begin within the same second:
  // members would renew each other's leases.
  if (next_member_id_ == 1) next_member_id_ = absl::ToUnixMicros(turn.now);
  ++incarnation_;
  started_ = last_tick_ = turn.now;
  // What verdicts come from was in the memory of the coordinator before.
  detector_.Reset();
  // They could not renew while no coordinator was there.
  for (auto& [id, member] : members_) {
    member.lease_end = turn.now + lease_;
    member.live_since = turn.now;
    member.heard = absl::InfinitePast();
    member.report.reset();
    member.process = v1::PROCESS_STATE_UNSPECIFIED;
  }
  looks_.clear();
  tie_asked_.clear();
  Emit(v1::EVENT_KIND_COORDINATOR_STARTED, nullptr,
       absl::StrCat("coordinator ", incarnation_, " serves ", job_.empty() ? "any job" : job_), turn);
}

void ClusterState::Tick(Turn& turn, v1::ClusterCommand& record) {
  // Leases are counted in time in which members could be heard.
  if (last_tick_ != absl::InfinitePast()) {
    const absl::Duration away = turn.now - last_tick_;
    if (away > policy::kLongestTick * lease_ || away < absl::ZeroDuration()) {
      for (auto& [id, member] : members_) member.lease_end += away;
    }
  }
  last_tick_ = turn.now;
  judge_soon_ = false;
  v1::ClusterCommand::Expire& expire = *record.mutable_expire();
  for (const auto& [id, member] : members_) {
    if (member.told.state() == v1::MEMBER_STATE_LIVE && member.lease_end < turn.now) {
      expire.add_member_ids(id);
    }
  }
  FindStragglers(expire);
  Expire(expire, turn);
  // Of what is so now: another look at the same moment finds nothing more.
  AskHosts();
  v1::ClusterCommand::Expire more;
  FindUnwell(more, turn.now);
  CloseTies(more);
  Expire(more, turn);
  expire.MergeFrom(more);
}

void ClusterState::Expire(const v1::ClusterCommand::Expire& request, Turn& turn) {
  for (const int64_t id : request.member_ids()) {
    MemberEntry* member = Find(id);
    if (member == nullptr || member->told.state() != v1::MEMBER_STATE_LIVE) continue;
    member->told.set_state(v1::MEMBER_STATE_EXPIRED);
    ++not_live_;
    if (InEpoch(member->told)) gone_.insert(member->told.name());
    detector_.Forget(id);
    totals_.set_leases_expired(totals_.leases_expired() + 1);
    RemovePosts(id, /*answered_only=*/true);
    Emit(v1::EVENT_KIND_LEASE_EXPIRED, &member->told,
         absl::StrCat(member->told.name(), " was not heard for ", absl::FormatDuration(lease_)), turn);
  }
  for (const v1::ClusterCommand::Finding& finding : request.findings()) TakeFinding(finding, turn);
  for (const uint64_t after : request.closed_ties()) CloseTie(after, turn);
}

}  // namespace cohort::cluster
