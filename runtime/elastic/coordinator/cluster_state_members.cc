// Members: who comes, is heard, goes and is forgotten.
#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "runtime/elastic/coordinator/cluster_state.h"
#include "runtime/elastic/coordinator/policy.h"

namespace cohort::cluster {
namespace {

absl::Status Unknown(int64_t id) {
  return absl::NotFoundError(absl::StrCat("member ", id, " is not known here; join again"));
}

std::string With(absl::string_view reason) {
  return reason.empty() ? std::string() : absl::StrCat(": ", reason);
}

}  // namespace

void ClusterState::Join(const v1::JoinRequest& request, Turn& turn) {
  if (!job_.empty() && request.job() != job_) {
    const bool lives = std::any_of(members_.begin(), members_.end(), [](const auto& member) {
      return member.second.told.state() == v1::MEMBER_STATE_LIVE;
    });
    if (lives) {
      turn.outcome.status = absl::FailedPreconditionError(absl::StrCat(
          "this coordinator serves the job ", job_, ", not ", request.job(), ", while members of it live"));
      return;
    }
    EndJob(turn);
  }
  if (const v1::Member* other = OfAnotherVersion(request.version()); other != nullptr) {
    turn.outcome.status = absl::FailedPreconditionError(
        absl::StrCat("this is version ", request.version(), ", and the job runs ", other->version(), " (",
                     other->name(), "): start it from the same build"));
    return;
  }
  MemberEntry* holder = Holder(request.name());
  if (holder != nullptr && holder->told.session() != request.session()) {
    if (holder->told.state() == v1::MEMBER_STATE_LIVE && !Evicted(holder->told)) {
      turn.outcome.status = absl::AlreadyExistsError(
          absl::StrCat("the name ", request.name(), " is held by process ", holder->told.pid(), " on ",
                       holder->told.host(), "; choose another, or wait until its lease has run out"));
      return;
    }
    GoAway(*holder, "another process has taken its name", turn);
    holder = nullptr;
  }
  if (holder == nullptr) {
    job_ = request.job();
    const int64_t id = next_member_id_++;
    holder = &members_[id];
    v1::Member& told = holder->told;
    told.set_id(id);
    told.set_name(request.name());
    told.set_session(request.session());
    told.set_host(request.host());
    told.set_pid(request.pid());
    told.set_address(request.address());
    told.set_host_id(request.host_id());
    told.set_version(request.version());
    told.set_role(request.role());
    told.set_launch_id(request.launch_id());
    told.set_launch_rank(request.launch_rank());
    told.set_launch_size(request.launch_size());
    told.set_state(v1::MEMBER_STATE_LIVE);
    told.set_joined_time(UnixSeconds(turn.now));
    told.set_last_epoch(request.last_epoch());
    // Somebody new who bears the name of a member that is gone is not that member.
    if (rank_.contains(told.name()) && (request.last_epoch() != 0 || !gone_.contains(told.name()))) {
      told.set_last_epoch(epoch_.number());
      if (const auto rank = rank_.find(told.name()); rank != rank_.end())
        told.set_last_place(rank->second + 1);
      gone_.erase(told.name());
    }
    holder->live_since = turn.now;
    holder_[told.name()] = id;
    totals_.set_members_joined(totals_.members_joined() + 1);
    ForgetBeyondLimit();
    Emit(v1::EVENT_KIND_MEMBER_JOINED, &told,
         absl::StrCat(told.name(), ", process ", told.pid(), " on ", told.host(), ", has joined",
                      told.role() == v1::MEMBER_ROLE_NEWCOMER ? " as a newcomer" : ""),
         turn);
  } else if (holder->told.state() == v1::MEMBER_STATE_EXPIRED) {
    Revive(*holder, turn);
  }
  holder->lease_end = turn.now + lease_;
  holder->heard = turn.now;
  v1::JoinResponse& response = turn.outcome.reply.emplace<v1::JoinResponse>();
  response.set_member_id(holder->told.id());
  response.set_lease_seconds(absl::ToDoubleSeconds(lease_));
  *response.mutable_epoch() = epoch_;
  response.set_incarnation(incarnation_);
}

const v1::Member* ClusterState::OfAnotherVersion(const std::string& version) const {
  if (version.empty()) return nullptr;
  for (const auto& [id, member] : members_) {
    const v1::Member& told = member.told;
    if (told.state() == v1::MEMBER_STATE_LIVE && !told.version().empty() && told.version() != version)
      return &told;
  }
  return nullptr;
}

void ClusterState::EndJob(Turn& turn) {
  for (auto& [id, member] : members_) {
    if (member.told.state() != v1::MEMBER_STATE_LEFT)
      GoAway(member, absl::StrCat("job ", job_, " is over"), turn);
  }
  posts_.clear();
  post_.clear();
  launches_.clear();
  ties_.clear();
  tie_asked_.clear();
  // The next job counts from its own start; what is numbered here goes on.
  v1::Epoch none;
  none.set_number(epoch_.number());
  epoch_ = std::move(none);
  IndexEpoch();
  detector_.Reset();
}

void ClusterState::Leave(const v1::LeaveRequest& request, Turn& turn) {
  MemberEntry* member = Find(request.member_id());
  if (member == nullptr || member->told.state() == v1::MEMBER_STATE_LEFT) return;
  GoAway(*member, request.reason(), turn);
}

void ClusterState::GoAway(MemberEntry& member, absl::string_view why, Turn& turn) {
  if (member.told.state() == v1::MEMBER_STATE_LIVE) ++not_live_;
  member.told.set_state(v1::MEMBER_STATE_LEFT);
  member.told.clear_found();
  if (InEpoch(member.told)) gone_.insert(member.told.name());
  detector_.Forget(member.told.id());
  holder_.erase(member.told.name());
  RemovePosts(member.told.id(), /*answered_only=*/false);
  Emit(v1::EVENT_KIND_MEMBER_LEFT, &member.told, absl::StrCat(member.told.name(), " has left", With(why)),
       turn);
}

void ClusterState::RequestLeave(const v1::RequestLeaveRequest& request, Turn& turn) {
  MemberEntry* member = request.name().empty() ? Find(request.member_id()) : Holder(request.name());
  if (member == nullptr || member->told.state() == v1::MEMBER_STATE_LEFT) {
    const std::string whom =
        request.name().empty() ? absl::StrCat("member ", request.member_id()) : request.name();
    turn.outcome.status = absl::NotFoundError(absl::StrCat(whom, " is not here; `cohort top` shows who is"));
    return;
  }
  if (!member->told.leave_requested()) {
    member->told.set_leave_requested(true);
    member->told.set_leave_reason(request.reason());
    Emit(v1::EVENT_KIND_LEAVE_REQUESTED, &member->told,
         absl::StrCat(member->told.name(), " is asked to leave", With(request.reason())), turn);
  }
  auto& response = turn.outcome.reply.emplace<v1::RequestLeaveResponse>();
  response.set_member_id(member->told.id());
  response.set_name(member->told.name());
}

void ClusterState::Renew(const v1::RenewRequest& request, Turn& turn) {
  MemberEntry* member = Find(request.member_id());
  if (member == nullptr || member->told.state() == v1::MEMBER_STATE_LEFT) {
    turn.outcome.status = Unknown(request.member_id());
    return;
  }
  if (member->told.state() == v1::MEMBER_STATE_EXPIRED) Revive(*member, turn);
  member->lease_end = turn.now + lease_;
  member->heard = turn.now;
  if (request.has_report()) TakeReport(request.report(), *member, turn.now);
  TakeSeen(request, member->told);
  auto& response = turn.outcome.reply.emplace<v1::RenewResponse>();
  response.set_incarnation(incarnation_);
  response.set_epoch(epoch_.number());
  response.set_in_epoch(InEpoch(member->told));
  response.set_evicted(Evicted(member->told));
  response.set_leave_requested(member->told.leave_requested());
  response.set_leave_reason(member->told.leave_reason());
  response.set_newcomers_waiting(newcomers_waiting());
  response.mutable_gone()->Add(gone_.begin(), gone_.end());
  response.set_lease_seconds(absl::ToDoubleSeconds(lease_));
  response.set_soonest_seconds(std::max(absl::ToDoubleSeconds(policy::kSoonestRenewal),
                                        static_cast<double>(members_.size()) / policy::kRenewalsPerSecond));
  response.set_leased(Leased(member->told));
  AskToLook(member->told, response);
  if (const runtime::elastic::Straggler* slow = detector_.Find(member->told.id())) {
    response.set_straggler_since(slow->step);
    response.set_straggler_words(DebugString(*slow));
  }
}

void ClusterState::TakeReport(const v1::StepReport& report, MemberEntry& member, absl::Time now) {
  if (!member.report.has_value() || member.report->step() != report.step()) member.step_time = now;
  member.report = report;
  member.report_time = now;
  if (!InEpoch(member.told)) return;
  judge_soon_ |= report.unusual();
  const runtime::elastic::WorkShare share = {.stage = report.stage(), .weight = report.weight()};
  const auto& recent = report.recent_compute_seconds();
  if (recent.empty()) detector_.Add(member.told.id(), share, report.step(), report.compute_seconds());
  for (int i = 0; i < recent.size(); ++i) {
    detector_.Add(member.told.id(), share, report.step() - recent.size() + 1 + i, recent[i]);
  }
}

void ClusterState::Revive(MemberEntry& member, Turn& turn) {
  member.told.set_state(v1::MEMBER_STATE_LIVE);
  member.live_since = turn.now;
  member.process = v1::PROCESS_STATE_UNSPECIFIED;
  --not_live_;
  if (InEpoch(member.told)) gone_.erase(member.told.name());
  waiting_ = -1;
  Emit(v1::EVENT_KIND_LEASE_BACK, &member.told, absl::StrCat(member.told.name(), " is heard again"), turn);
}

ClusterState::MemberEntry* ClusterState::Find(int64_t id) {
  const auto found = members_.find(id);
  return found == members_.end() ? nullptr : &found->second;
}

ClusterState::MemberEntry* ClusterState::Holder(const std::string& name) {
  const auto found = holder_.find(name);
  return found == holder_.end() ? nullptr : Find(found->second);
}

bool ClusterState::InEpoch(const v1::Member& member) const {
  return member.last_epoch() != 0 && member.last_epoch() == epoch_.number();
}

bool ClusterState::Evicted(const v1::Member& member) const {
  return member.last_epoch() != 0 && member.last_epoch() < epoch_.number();
}

void ClusterState::Forget(int64_t id) {
  const auto found = members_.find(id);
  const auto holder = holder_.find(found->second.told.name());
  if (holder != holder_.end() && holder->second == id) holder_.erase(holder);
  if (found->second.told.state() != v1::MEMBER_STATE_LIVE) --not_live_;
  members_.erase(found);
  RemovePosts(id, /*answered_only=*/false);
}

void ClusterState::ForgetOld(uint64_t former_epoch) {
  std::vector<int64_t> old;
  for (const auto& [id, member] : members_) {
    if (member.told.state() == v1::MEMBER_STATE_LIVE || InEpoch(member.told)) continue;
    if (member.told.last_epoch() < std::max<uint64_t>(former_epoch, 1)) old.push_back(id);
  }
  for (const int64_t id : old) Forget(id);
}

void ClusterState::ForgetBeyondLimit() {
  if (not_live_ <= policy::kGoneKept) return;
  std::vector<int64_t> gone;
  for (const auto& [id, member] : members_) {
    if (member.told.state() != v1::MEMBER_STATE_LIVE && !InEpoch(member.told)) gone.push_back(id);
  }
  if (gone.size() <= policy::kGoneKept) return;
  gone.resize(gone.size() - policy::kGoneKept);
  for (const int64_t id : gone) Forget(id);
}

}  // namespace cohort::cluster
