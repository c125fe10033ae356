// Epochs, the board, the rendezvous, and what members report.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "runtime/elastic/coordinator/cluster_state.h"
#include "runtime/elastic/coordinator/policy.h"

namespace cohort::cluster {
namespace {

// The first names, and how many more there are.
std::string Names(const v1::Epoch& epoch) {
  if (epoch.members().empty()) return "nobody";
  const int shown = std::min(epoch.members_size(), policy::kNamesShown);
  std::string names = absl::StrJoin(epoch.members().begin(), epoch.members().begin() + shown, ", ");
  if (shown < epoch.members_size()) absl::StrAppend(&names, " and ", epoch.members_size() - shown, " more");
  return names;
}

bool SameAdvance(const v1::AdvanceEpochRequest& request, const v1::Epoch& epoch) {
  return request.to() == epoch.counted() && request.arrangement() == epoch.arrangement() &&
         request.step() == epoch.step() &&
         std::equal(request.members().begin(), request.members().end(), epoch.members().begin(),
                    epoch.members().end());
}

absl::Status Fenced(const std::string& message, const v1::Epoch& present) {
  absl::Status status = absl::FailedPreconditionError(message);
  v1::Epoch details = present;
  details.clear_arrangement();
  status.SetPayload(kEpochPayload, absl::Cord(details.SerializeAsString()));
  return status;
}

}  // namespace

void ClusterState::AdvanceEpoch(const v1::AdvanceEpochRequest& request, Turn& turn) {
  MemberEntry* caller = Find(request.member_id());
  if (caller == nullptr || caller->told.state() == v1::MEMBER_STATE_LEFT) {
    turn.outcome.status =
        absl::NotFoundError(absl::StrCat("member ", request.member_id(), " is not known here; join again"));
    return;
  }
  if (std::find(request.members().begin(), request.members().end(), caller->told.name()) ==
      request.members().end()) {
    turn.outcome.status =
        absl::InvalidArgumentError(absl::StrCat("members has not ", caller->told.name(), ", who asks"));
    return;
  }
  const bool repeated = SameAdvance(request, epoch_);
  const bool evicted = Evicted(caller->told);
  if (!repeated && (request.from() != epoch_.counted() || evicted)) {
    turn.outcome.status = Fenced(
        absl::StrCat("epoch ", epoch_.number(), " is the present one",
                     evicted ? absl::StrCat(", without ", caller->told.name()) : std::string(),
                     ", refused is one from ", request.from(), " to ", request.to(), ": its members are ",
                     Names(epoch_), ". Whoever is not among them must stop, and may join as a newcomer"),
        epoch_);
    // Who is ahead has had epochs that nobody told of (newcomers came and went), hears which one is known here, and says it
    // again: nothing to report.
    const bool ahead = !evicted && request.from() > epoch_.counted();
    if (!ahead && caller->told.last_refused() != request.to()) {
      caller->told.set_last_refused(request.to());
      totals_.set_fenced(totals_.fenced() + 1);
      Emit(v1::EVENT_KIND_FENCED, &caller->told,
           absl::StrCat(caller->told.name(), " was refused an epoch from ", request.from(), " to ",
                        request.to(), " of ", request.members_size(), " members: epoch ", epoch_.number(),
                        " is the present one"),
           turn);
    }
    return;
  }
  if (!repeated) {
    v1::Epoch next;
    // The same unless a half has taken over from one that was further.
    next.set_number(epoch_.number() + (request.to() - request.from()));
    next.set_counted(request.to());
    *next.mutable_members() = request.members();
    next.set_arrangement(request.arrangement());
    next.set_step(request.step());
    next.set_why(request.why());
    Enter(std::move(next), turn);
  }
  *turn.outcome.reply.emplace<v1::AdvanceEpochResponse>().mutable_epoch() = epoch_;
}

void ClusterState::Enter(v1::Epoch next, Turn& turn) {
  const uint64_t former = epoch_.number();
  next.set_time(UnixSeconds(turn.now));
  epoch_ = std::move(next);
  for (int rank = 0; rank < epoch_.members_size(); ++rank) {
    MemberEntry* member = Holder(epoch_.members(rank));
    if (member == nullptr) continue;
    member->told.set_last_epoch(epoch_.number());
    member->told.set_last_place(rank + 1);
  }
  IndexEpoch();
  detector_.Reset();
  ForgetOld(former);
  totals_.set_epochs(totals_.epochs() + 1);
  v1::Event event;
  event.set_kind(v1::EVENT_KIND_EPOCH);
  event.set_step(epoch_.step());
  event.set_words(absl::StrCat("epoch ", epoch_.number(), " has ", epoch_.members_size(), " members",
                               epoch_.why().empty() ? "" : ": ", epoch_.why()));
  Emit(std::move(event), turn);
}

void ClusterState::IndexEpoch() {
  rank_.clear();
  for (int rank = 0; rank < epoch_.members_size(); ++rank) rank_[epoch_.members(rank)] = rank;
  gone_.clear();
  for (const auto& [id, member] : members_) {
    if (InEpoch(member.told) && member.told.state() != v1::MEMBER_STATE_LIVE)
      gone_.insert(member.told.name());
  }
  for (const auto& [id, member] : members_) {
    if (InEpoch(member.told) && member.told.state() == v1::MEMBER_STATE_LIVE) gone_.erase(member.told.name());
  }
}

bool ClusterState::Shown(const Post& post) const {
  if (post.answer.has_value()) return false;
  const auto member = members_.find(post.member_id);
  return member == members_.end() || member->second.told.state() == v1::MEMBER_STATE_LIVE;
}

void ClusterState::BoardPost(const v1::BoardPostRequest& request, Turn& turn) {
  const auto found = post_.find(request.name());
  if (found != post_.end()) {
    if (posts_.at(found->second).text == request.text()) return;
    posts_.erase(found->second);
    post_.erase(found);
  }
  if (posts_.size() >= policy::kMaxPosts) {
    turn.outcome.status = absl::ResourceExhaustedError(
        absl::StrCat("the board is full: ", policy::kMaxPosts, " posts are on it"));
    return;
  }
  const uint64_t place = next_post_++;
  posts_[place] = Post{request.name(), request.text(), request.member_id(), turn.now, std::nullopt};
  post_[request.name()] = place;
  const MemberEntry* member = Find(request.member_id());
  Emit(v1::EVENT_KIND_NEWCOMER_WAITING, member == nullptr ? nullptr : &member->told,
       absl::StrCat(request.name(), " waits to be taken in"), turn);
}

void ClusterState::BoardWithdraw(const v1::BoardWithdrawRequest& request, Turn& turn) {
  const auto found = post_.find(request.name());
  if (found == post_.end()) return;
  posts_.erase(found->second);
  post_.erase(found);
  turn.changed = true;
}

void ClusterState::BoardAnswer(const v1::BoardAnswerRequest& request, Turn& turn) {
  const auto found = post_.find(request.name());
  if (found == post_.end()) return;  // withdrawn meanwhile
  Post& post = posts_.at(found->second);
  if (post.answer == request.text()) return;
  const bool first = !post.answer.has_value();
  post.answer = request.text();
  turn.changed = true;
  if (!first) return;
  const MemberEntry* member = Find(post.member_id);
  Emit(v1::EVENT_KIND_NEWCOMER_ANSWERED, member == nullptr ? nullptr : &member->told,
       absl::StrCat(request.name(), " is invited"), turn);
}

void ClusterState::RemovePosts(int64_t member_id, bool answered_only) {
  for (auto it = posts_.begin(); it != posts_.end();) {
    const Post& post = it->second;
    if (post.member_id == member_id && (post.answer.has_value() || !answered_only)) {
      post_.erase(post.name);
      it = posts_.erase(it);
    } else {
      ++it;
    }
  }
}

void ClusterState::RendezvousPut(const v1::RendezvousPutRequest& request, Turn& turn) {
  auto launch = std::find_if(launches_.begin(), launches_.end(),
                             [&](const Launch& each) { return each.id == request.launch_id(); });
  if (launch == launches_.end()) {
    if (launches_.size() >= policy::kLaunchesKept) launches_.pop_front();
    launches_.push_back(Launch{request.launch_id(), {}});
    launch = std::prev(launches_.end());
  }
  const auto [value, fresh] = launch->values.emplace(request.key(), request.value());
  if (fresh) {
    turn.changed = true;
  } else if (value->second != request.value()) {
    turn.outcome.status = absl::AlreadyExistsError(
        absl::StrCat("launch ", request.launch_id(), " has another value of ", request.key(),
                     ": two of its ranks have the same number, or its id was used before"));
  }
}

void ClusterState::Report(const v1::ReportRequest& request, Turn& turn) {
  MemberEntry* member = Find(request.member_id());
  if (member == nullptr || member->told.state() == v1::MEMBER_STATE_LEFT) {
    turn.outcome.status =
        absl::NotFoundError(absl::StrCat("member ", request.member_id(), " is not known here; join again"));
    return;
  }
  if (request.sequence() <= member->told.last_report()) return;
  member->told.set_last_report(request.sequence());
  if (request.kind() == v1::EVENT_KIND_RECONFIGURATION_ENDED) {
    totals_.set_reconfigurations(totals_.reconfigurations() + 1);
    totals_.set_reconfiguration_seconds(totals_.reconfiguration_seconds() + request.seconds());
  }
  v1::Event event;
  event.set_member_id(member->told.id());
  event.set_member(member->told.name());
  event.set_kind(request.kind());
  event.set_step(request.step());
  event.set_words(request.words());
  event.set_seconds(request.seconds());
  event.set_subject(request.subject());
  Emit(std::move(event), turn);
}

}  // namespace cohort::cluster
