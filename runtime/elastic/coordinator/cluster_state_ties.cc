// Which of two halves goes on.
//
// Exactly half of an epoch's members are on each side of a cut network: neither may go on by itself, so they ask here, and
// the first one goes on (the holder). Where it dies afterwards the other one would be blocked for good, so it may take over.
// That must never make two groups that train:
//
//  1. The holder's members train on only while their leases hold, by their own clocks, from the moment at which they sent
//     the renewal that was answered: Client::standing().lease_until. That is never later than the lease ends here. They
//     look before every update of the state and every checkpoint (tools/cohort/elastic/training_host.cc). All of them know
//     that they are bound, without having to hear it: the decision by a half says so (comm::MembershipChange::tied); who joins
//     them hears it from here with its first renewal (RenewResponse.leased).
//  2. The other half takes over only when no member of the holder, nor of the present epoch where that is a later one,
//     has held a lease for a whole lease, which also makes up for clocks that were set: then none of them is inside an
//     update any more that it began while it had one.
//     (An update or the writing of a checkpoint that takes longer than a lease may still end: it is of the step before
//     which they would stop, and who takes over does the same step. What is written is renamed into place, whole.)
//     A member that waits on the board has left its group, and counts no more.
//  3. Taking over is an epoch of its own, of which the former holder's members are not: whoever of them is heard again is
//     told that it is evicted, in the answer that would have renewed its lease, and its epochs are refused.
//  4. The bond ends (the tie is closed, for good, in favour of who has it) when the holder is heard after the other half
//     has asked in vain, as that one gives up then; or when it is heard after policy::kTieOpen: who asks later gives up
//     as well. From then on a coordinator that is away stops nobody.
//
// Whoever deletes the coordinator's state while a tie is open takes 3 away.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "runtime/elastic/coordinator/cluster_state.h"
#include "runtime/elastic/coordinator/policy.h"

namespace cohort::cluster {
namespace {

using NameList = google::protobuf::RepeatedPtrField<std::string>;

bool Has(const NameList& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}
bool Same(const NameList& a, const NameList& b) {
  return a.size() == b.size() &&
         std::all_of(a.begin(), a.end(), [&](const auto& name) { return Has(b, name); });
}

v1::TieResponse Answer(v1::TieState state, const std::string& words) {
  v1::TieResponse response;
  response.set_state(state);
  response.set_words(words);
  return response;
}

v1::ClusterSnapshot::Tie* TieAfter(std::deque<v1::ClusterSnapshot::Tie>& ties, uint64_t after) {
  const auto found =
      std::find_if(ties.begin(), ties.end(), [&](const auto& tie) { return tie.after() == after; });
  return found == ties.end() ? nullptr : &*found;
}

}  // namespace

std::vector<const ClusterState::MemberEntry*> ClusterState::Holding(
    const v1::ClusterSnapshot::Tie& tie) const {
  std::vector<const MemberEntry*> holding;
  const auto add = [&](const NameList& names) {
    for (const std::string& name : names) {
      const auto id = holder_.find(name);
      if (id == holder_.end()) continue;
      const bool waits = std::any_of(posts_.begin(), posts_.end(),
                                     [&](const auto& post) { return post.second.member_id == id->second; });
      if (!waits) holding.push_back(&members_.at(id->second));
    }
  };
  add(tie.holder());
  if (epoch_.counted() > tie.after()) add(epoch_.members());
  return holding;
}

v1::TieResponse ClusterState::Weigh(const v1::TieRequest& request, const v1::Member& caller, absl::Time now,
                                    v1::ClusterCommand::Settle& settle) {
  settle.set_after(request.after());
  *settle.mutable_half() = request.half();
  const v1::ClusterSnapshot::Tie* tie = TieAfter(ties_, request.after());
  const bool asks = request.half().empty();
  if (tie != nullptr && Has(tie->holder(), caller.name())) {
    if (Evicted(caller)) return Answer(v1::TIE_STATE_LOST, "the group has gone on without this member");
    return asks || Same(tie->holder(), request.half())
               ? Answer(v1::TIE_STATE_WON, "this half goes on")
               : Answer(v1::TIE_STATE_LOST, "another half with this member was first");
  }
  // Who is out of a later epoch of the holder's is not out of it for good while the tie is open.
  if (tie == nullptr && (Evicted(caller) || epoch_.counted() > request.after())) {
    return Answer(v1::TIE_STATE_LOST,
                  absl::StrCat("epoch ", epoch_.number(), " is the present one: others have gone on"));
  }
  if (tie == nullptr) {
    if (asks) return Answer(v1::TIE_STATE_LOST, "nobody has asked for this half");
    // Whose lease nobody can see must not be bound to it.
    for (const std::string& name : request.half()) {
      if (holder_.contains(name)) continue;
      settle.clear_half();
      return Answer(v1::TIE_STATE_PENDING, absl::StrCat(name, " has not joined yet"));
    }
    return Answer(v1::TIE_STATE_WON, "this half was first");
  }
  const std::string others = absl::StrJoin(tie->holder(), ", ");
  if (tie->closed()) return Answer(v1::TIE_STATE_LOST, absl::StrCat(others, " go on"));
  const NameList& half = asks ? tie->claimant() : request.half();
  const bool overlaps =
      std::any_of(half.begin(), half.end(), [&](const auto& name) { return Has(tie->holder(), name); });
  if (!Has(half, caller.name()) || overlaps || (!tie->claimant().empty() && !Same(half, tie->claimant()))) {
    return Answer(v1::TIE_STATE_LOST, absl::StrCat(others, " go on, and another half has asked already"));
  }
  *settle.mutable_half() = half;
  const std::vector<const MemberEntry*> holding = Holding(*tie);
  const absl::Time asked = tie_asked_.try_emplace(request.after(), now).first->second;
  // One that was on its way when the other half asked is no sign.
  const absl::Time sign = asked + lease_ / policy::kRenewalsPerLease;
  if (std::any_of(holding.begin(), holding.end(), [&](const MemberEntry* member) {
        return member->told.state() == v1::MEMBER_STATE_LIVE && member->heard > sign;
      })) {
    settle.set_close(true);
    return Answer(v1::TIE_STATE_LOST, absl::StrCat(others, " go on"));
  }
  settle.set_take_over(std::all_of(holding.begin(), holding.end(), [&](const MemberEntry* member) {
    return member->told.state() != v1::MEMBER_STATE_LIVE && member->lease_end + lease_ < now;
  }));
  if (settle.take_over()) {
    return Answer(v1::TIE_STATE_WON, absl::StrCat("none of ", others, " holds a lease any more"));
  }
  return Answer(v1::TIE_STATE_PENDING, absl::StrCat(others, " were first, and are not heard since"));
}

void ClusterState::Tie(const v1::TieRequest& request, Turn& turn, v1::ClusterCommand& record) {
  const MemberEntry* caller = Find(request.member_id());
  if (caller == nullptr || caller->told.state() == v1::MEMBER_STATE_LEFT) {
    turn.outcome.status =
        absl::NotFoundError(absl::StrCat("member ", request.member_id(), " is not known here; join again"));
    return;
  }
  if (!request.half().empty() && !Has(request.half(), caller->told.name())) {
    turn.outcome.status =
        absl::InvalidArgumentError(absl::StrCat("half has not ", caller->told.name(), ", who asks"));
    return;
  }
  const v1::TieResponse response = Weigh(request, caller->told, turn.now, *record.mutable_settle());
  if (response.state() != v1::TIE_STATE_LOST || record.settle().close()) Settle(record.settle(), turn);
  turn.outcome.reply = response;
}

void ClusterState::Settle(const v1::ClusterCommand::Settle& settle, Turn& turn) {
  v1::ClusterSnapshot::Tie* tie = TieAfter(ties_, settle.after());
  const std::string half = absl::StrJoin(settle.half(), ", ");
  if (tie == nullptr) {
    if (settle.half().empty()) return;
    if (ties_.size() >= policy::kTiesKept) ties_.pop_front();
    tie = &ties_.emplace_back();
    tie->set_after(settle.after());
    *tie->mutable_holder() = settle.half();
    tie->set_time_micros(absl::ToUnixMicros(turn.now));
    Emit(v1::EVENT_KIND_NOTE, nullptr,
         absl::StrCat("half of the members of epoch ", settle.after(), " go on, as they were first: ", half),
         turn);
    return;
  }
  if (tie->closed()) return;
  if (settle.close()) {
    CloseTie(settle.after(), turn);
  } else if (settle.take_over()) {
    TakeOver(*tie, settle.half(), turn);
  } else if (tie->claimant().empty() && !Same(tie->holder(), settle.half()) && !settle.half().empty()) {
    *tie->mutable_claimant() = settle.half();
    Emit(v1::EVENT_KIND_NOTE, nullptr,
         absl::StrCat("the other half of epoch ", settle.after(), " asks to go on: ", half), turn);
  }
}

void ClusterState::TakeOver(v1::ClusterSnapshot::Tie& tie, const NameList& half, Turn& turn) {
  const std::string former = absl::StrJoin(tie.holder(), ", ");
  *tie.mutable_holder() = half;
  tie.clear_claimant();
  tie.set_closed(true);
  v1::Epoch next = epoch_;
  next.set_number(epoch_.number() + 1);
  next.set_counted(tie.after());
  *next.mutable_members() = half;
  next.set_why(absl::StrCat("none of ", former, " holds a lease any more"));
  Enter(std::move(next), turn);
}

void ClusterState::CloseTie(uint64_t after, Turn& turn) {
  v1::ClusterSnapshot::Tie* tie = TieAfter(ties_, after);
  if (tie == nullptr || tie->closed()) return;
  tie->set_closed(true);
  Emit(
      v1::EVENT_KIND_NOTE, nullptr,
      absl::StrCat("the tie after epoch ", after, " is over: ", absl::StrJoin(tie->holder(), ", "), " go on"),
      turn);
}

void ClusterState::CloseTies(v1::ClusterCommand::Expire& expire) const {
  for (const v1::ClusterSnapshot::Tie& tie : ties_) {
    if (tie.closed()) continue;
    const absl::Time end = absl::FromUnixMicros(tie.time_micros()) + policy::kTieOpen;
    const std::vector<const MemberEntry*> holding = Holding(tie);
    if (std::any_of(holding.begin(), holding.end(),
                    [&](const MemberEntry* member) { return member->heard > end; })) {
      expire.add_closed_ties(tie.after());
    }
  }
}

bool ClusterState::Leased(const v1::Member& member) const {
  return std::any_of(ties_.begin(), ties_.end(), [&](const v1::ClusterSnapshot::Tie& tie) {
    if (tie.closed()) return false;
    // Who is in the present epoch belongs to who goes on, unless that epoch is the tied one.
    return epoch_.counted() > tie.after() || Has(tie.holder(), member.name());
  });
}

}  // namespace cohort::cluster
