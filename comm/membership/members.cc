// The engine's part in membership: messages about groups, agreement, and giving a group its next form.
#include <algorithm>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "comm/check.h"
#include "comm/engine.h"
#include "comm/membership/compose.h"
#include "comm/policy.h"
#include "comm/transport/shm/shm_transport.h"
#include "comm/transport/ucx/ucx_transport.h"

namespace cohort::comm {

// ---- Messages ----

void Engine::MembershipMail::OnRequestDone(uint32_t /*token*/, const absl::Status& status) {
  if (incoming && status.ok()) engine->OnMembershipMessage(recv.peer, context, body);
  over = true;
}

void Engine::SendMembership(int peer, uint32_t context, const MembershipMessage& message) {
  if (peer == topology_.rank() || gone_[peer].gone) return;
  mail_.remove_if([](const auto& mail) { return mail->over; });
  auto& mail = *mail_.emplace_back(std::make_unique<MembershipMail>());
  mail.engine = this;
  mail.context = context;
  mail.body = Encode(message);
  mail.send.peer = peer;
  mail.send.key = {context | kMembershipContext, next_mail_++, 0};
  mail.send.data = reinterpret_cast<const std::byte*>(mail.body.data());
  mail.send.bytes = mail.body.size();
  mail.send.owner = &mail;
  PostSend(mail.send);
}

void Engine::OnMembershipArrival(Transport& from, int peer, const MessageHeader& header, bool announced,
                                 const std::byte* body) {
  const uint32_t context = header.key.context & ~kMembershipContext;
  if (!announced) {
    if (header.slot != 0) from.Reply(peer, header, Answer::kTaken);
    OnMembershipMessage(peer, context, {reinterpret_cast<const char*>(body), header.bytes});
    return;
  }
  auto& mail = *mail_.emplace_back(std::make_unique<MembershipMail>());
  mail.engine = this;
  mail.context = context;
  mail.incoming = true;
  mail.body.resize(header.bytes);
  mail.recv.peer = peer;
  mail.recv.key = header.key;
  mail.recv.signature = header.signature;
  mail.recv.bytes = header.bytes;
  mail.recv.destination = reinterpret_cast<std::byte*>(mail.body.data());
  mail.recv.owner = &mail;
  from.Accept(mail.recv, header);
}

void Engine::OnMembershipMessage(int peer, uint32_t context, absl::string_view body) {
  const absl::StatusOr<MembershipMessage> message = DecodeMembershipMessage(body);
  if (!message.ok()) return;
  const auto group = groups_.find(context);
  if (group != groups_.end()) {
    HandleMembership(*group->second, peer, *message);
    return;
  }
  if (!retired_.contains(context)) {
    early_[context].emplace_back(peer, *message);
    return;
  }
  const auto decision = decided_.find(context);
  const auto kind = message->agreement.kind;
  const bool asks = message->kind == MembershipMessage::Kind::kAgreement &&
                    (kind == AgreementMessage::Kind::kPrepare || kind == AgreementMessage::Kind::kPropose);
  if (decision == decided_.end() || !asks) return;
  MembershipMessage answer;
  answer.agreement.kind = AgreementMessage::Kind::kDecide;
  answer.agreement.value = decision->second.first;
  answer.agreement.tied = decision->second.second;
  SendMembership(peer, context, answer);
}

void Engine::HandleMembership(Group& group, int peer, const MembershipMessage& message) {
  if (message.kind != MembershipMessage::Kind::kAgreement) {
    if (group.revoked.ok()) {
      group.revoked = message.status;
      FailGroup(group, message.status);
    }
    if (message.kind == MembershipMessage::Kind::kRevokeParts) FailParts(group, message.status);
    return;
  }
  if (group.agreement != nullptr) {
    group.agreement->OnMessage(peer, message.agreement);
    FlushAgreement(group);
    doorbell_->Ring();
    return;
  }
  group.inbox.emplace_back(peer, message);
  if (message.agreement.kind != AgreementMessage::Kind::kDecide) return;
  // The others have gone on without waiting for this rank.
  const absl::StatusOr<EditDecision> decision = DecodeEditDecision(message.agreement.value);
  if (!decision.ok()) return;
  const std::vector<int>& members = decision->members;
  if (std::find(members.begin(), members.end(), topology_.rank()) != members.end()) return;
  group.removed = RemovedStatus(topology_.rank(), *decision);
  FailGroup(group, group.removed);
}

void Engine::FlushAgreement(Group& group) {
  for (auto& [peer, agreement_message] : group.agreement->TakeOutbox()) {
    MembershipMessage message;
    message.agreement = std::move(agreement_message);
    SendMembership(peer, group.context, message);
  }
}

void Engine::OnDismissed(int peer) {
  OnPeerGone(peer, /*left=*/false, absl::StrCat("rank ", peer, " has taken this rank out of its world"));
  for (const auto& [context, group] : groups_) {
    if (!group->world || !group->removed.ok()) continue;
    group->removed = ExcludedStatus(
        Exclusion::kRemoved,
        absl::StrCat("rank ", topology_.rank(),
                     " is not a member of the group any more: the others went on without it. Join again"));
    FailGroup(*group, group->removed);
  }
}

// ---- Ending an epoch ----

void Engine::FailGroup(const Group& group, const absl::Status& why) {
  const std::vector<std::shared_ptr<Run>> runs = runs_;
  for (const auto& run : runs) {
    if (run->arguments().group.get() == &group) run->Fail(why, /*tell=*/false);
  }
}

void Engine::FailParts(const Group& group, const absl::Status& why) {
  for (const auto& [context, part] : groups_) {
    const Group* above = part->parent.get();
    while (above != nullptr && above != &group) above = above->parent.get();
    if (above == nullptr || !part->revoked.ok()) continue;
    part->revoked = why;
    FailGroup(*part, why);
  }
}

void Engine::RevokeLocked(Group& group, const absl::Status& why, bool parts) {
  if (!parts && !group.revoked.ok()) return;
  if (group.revoked.ok()) group.revoked = why;
  MembershipMessage message;
  message.kind = parts ? MembershipMessage::Kind::kRevokeParts : MembershipMessage::Kind::kRevoke;
  message.status =
      absl::Status(why.code(), absl::StrCat(why.message(), " [said by rank ", topology_.rank(), "]"));
  for (const int member : group.members) SendMembership(member, group.context, message);
  FailGroup(group, why);
  if (parts) FailParts(group, why);
}

void Engine::Revoke(const std::shared_ptr<Group>& group, const absl::Status& why, bool parts) {
  COHORT_CHECK(!why.ok(), "operations cannot be ended with OK");
  const std::lock_guard lock(mutex_);
  RevokeLocked(*group, why, parts);
  SweepLocked();
}

bool Engine::AnyGone(const std::shared_ptr<Group>& group) {
  const std::lock_guard lock(mutex_);
  return std::any_of(group->members.begin(), group->members.end(),
                     [&](int member) { return gone_[member].gone; });
}

void Engine::RetireLocked(uint32_t context) {
  const auto ours = [&](const MessageKey& key) { return (key.context & ~kPointToPointContext) == context; };
  matcher_.DropIf([&](const Arrival& arrival) { return ours(arrival.header.key); });
  std::erase_if(aborts_, [&](const Abort& abort) { return ours(abort.key); });
  retired_.insert(context);
}

// ---- Agreement ----

absl::StatusOr<EditDecision> Engine::Agree(const std::shared_ptr<Group>& group, const EditOptions& options,
                                           std::vector<std::pair<std::string, MemberCard>> newcomers,
                                           absl::Time deadline) {
  static const std::atomic<bool> kNever{false};
  const int64_t give_up = NowNanos() + absl::ToInt64Nanoseconds(deadline - absl::Now());
  std::unique_lock lock(mutex_);
  if (!group->removed.ok()) return group->removed;
  // What is in flight elsewhere in a group with an error ends, and hears why.
  absl::Status cause = group->failure;
  for (const int member : group->members) {
    if (gone_[member].gone) cause.Update(absl::UnavailableError(gone_[member].how));
  }
  if (!cause.ok()) {
    RevokeLocked(*group, absl::Status(cause.code(), absl::StrCat(cause.message(), " (rank ", topology_.rank(),
                                                                 " edits the group)")));
  }
  SweepLocked();
  const std::vector<std::shared_ptr<Run>> in_flight = runs_;
  lock.unlock();
  for (const auto& run : in_flight) {
    if (run->arguments().group == group) (void)run->Wait(deadline);
  }
  lock.lock();
  if (group->agreement == nullptr) {
    EditVote vote;
    vote.next_context = next_context_;
    vote.next_member = next_member_;
    vote.leaves = options.leave;
    vote.card = card_;
    Agreement::Options how;
    how.self = topology_.rank();
    how.members = group->members;
    how.quorum = options.quorum;
    how.counted_below = options.counted_below;
    how.tie = options.tie;
    how.patience = absl::ToInt64Nanoseconds(options.patience);
    how.vote = Encode(vote);
    how.compose = [old = EditedGroup{group->epoch, group->members}, options,
                   newcomers = std::move(newcomers)](const std::map<int, Agreement::Vote>& votes) {
      return Encode(ComposeDecision(old, votes, newcomers, options));
    };
    group->agreement = std::make_unique<Agreement>(std::move(how), NowNanos());
  } else {
    group->agreement->Retry(NowNanos());
  }
  Agreement& agreement = *group->agreement;
  for (const int member : group->members) {
    if (gone_[member].gone) agreement.OnLost(member);
  }
  for (const auto& [peer, message] : std::exchange(group->inbox, {})) {
    agreement.OnMessage(peer, message.agreement);
  }
  waiters_.fetch_add(1, std::memory_order_relaxed);
  ++agreeing_;
  absl::Status failure;
  for (;;) {
    const int64_t now = NowNanos();  // before what has come is delivered: see agreement.h
    while (ProgressLocked()) {
    }
    if (now - last_check_ >= policy::kCheckNanos) CheckLocked(now);
    if (!agreement.decision().has_value()) agreement.Tick(now);
    FlushAgreement(*group);
    if (agreement.decision().has_value()) break;
    if (!group->removed.ok()) {
      failure = group->removed;
    } else if (agreement.no_quorum()) {
      failure = ExcludedStatus(
          Exclusion::kNoQuorum,
          absl::StrCat("no quorum: of the ", group->members.size(), " members of the group, rank ",
                       topology_.rank(), " cannot reach ranks ", absl::StrJoin(agreement.Suspects(), ", "),
                       "; this side must not go on. Try again when they are back, or end"));
    } else if (now >= give_up) {
      failure = absl::DeadlineExceededError(
          absl::StrCat("the edit of the group was not decided in time; not heard of: ranks ",
                       absl::StrJoin(agreement.Suspects(), ", ")));
    }
    if (!failure.ok()) break;
    lock.unlock();
    SleepOnce(&kNever, std::min(agreement.TickNanos(), give_up - now));
    lock.lock();
  }
  --agreeing_;
  waiters_.fetch_sub(1, std::memory_order_relaxed);
  if (!failure.ok()) return failure;
  COHORT_ASSIGN_OR_RETURN(EditDecision decision, DecodeEditDecision(*agreement.decision()));
  decision.tied = agreement.tied();
  return decision;
}

// ---- The next form ----

absl::Status Engine::Adopt(const std::shared_ptr<Group>& group, const EditDecision& decision) {
  const std::lock_guard lock(mutex_);
  const int self = topology_.rank();
  const uint32_t past = group->context;
  COHORT_CHECK(decision.epoch == group->epoch + 1, "epoch %u after %u", decision.epoch, group->epoch);
  decided_[past] = {Encode(decision), decision.tied};
  if (decided_.size() > policy::kDecisionsKept) decided_.erase(decided_.begin());
  const auto place = std::find(decision.members.begin(), decision.members.end(), self);
  if (place == decision.members.end()) {
    group->removed = RemovedStatus(self, decision);
    FailGroup(*group, group->removed);
    SweepLocked();
    return group->removed;
  }
  next_member_ = std::max(next_member_, decision.next_member);
  next_context_ = std::max(next_context_, decision.context + 1);
  RetireLocked(past);
  groups_.erase(past);
  const std::vector<int> before = std::exchange(group->members, decision.members);
  group->rank = static_cast<int>(place - decision.members.begin());
  group->context = decision.context;
  group->epoch = decision.epoch;
  group->next_sequence = 0;
  group->failure = absl::OkStatus();
  group->failures.clear();
  group->failed_elsewhere = {};
  group->revoked = absl::OkStatus();
  group->agreement.reset();
  groups_[group->context] = group;
  recorder_.OnGroup(group->context, group->epoch, group->members);
  group->inbox.clear();
  for (const auto& [member, card] : decision.cards) ReachLocked(member, card);
  if (group->world) {
    for (const int member : before) {
      if (std::find(decision.members.begin(), decision.members.end(), member) != decision.members.end())
        continue;
      DetachLocked(member,
                   absl::StrCat("rank ", member, " was taken out of the world in epoch ", decision.epoch));
    }
  }
  for (const auto& transport : transports_) transport->PublishBegun(group->context, UINT32_MAX);
  const auto early = std::exchange(early_[group->context], {});
  early_.erase(group->context);
  for (const auto& [peer, message] : early) HandleMembership(*group, peer, message);
  SweepLocked();
  return absl::OkStatus();
}

void Engine::ReachLocked(int peer, const MemberCard& card) {
  if (peer == topology_.rank()) return;
  if (peer >= static_cast<int>(routes_.size())) {
    routes_.resize(peer + 1, nullptr);
    gone_.resize(peer + 1);
    matcher_.Grow(peer + 1);
  }
  if (routes_[peer] != nullptr) return;
  std::vector<Location> locations;
  for (int rank = 0; rank < topology_.size(); ++rank) locations.push_back(topology_.location(rank));
  if (peer >= topology_.size()) locations.resize(peer + 1, Location{"?"});
  locations[peer] = card.location;
  topology_ = Topology(topology_.rank(), locations);
  absl::Status why = absl::UnimplementedError("neither shared memory nor UCX connects the two");
  switch (PathBetween(card_, card)) {
    case Path::kSharedMemory:
      why = shm_->Attach(peer, card.shm);
      if (why.ok()) routes_[peer] = shm_;
      break;
    case Path::kUcx:
      why = ucx_->Attach(peer, card.ucx);
      if (why.ok()) routes_[peer] = ucx_;
      break;
    case Path::kNone:
      break;
  }
  if (why.ok()) return;
  any_lost_ = gone_[peer].gone = gone_[peer].detached = true;
  gone_[peer].how = absl::StrCat("rank ", peer, " on ", card.host, " cannot be reached: ", why.ToString());
}

void Engine::DetachLocked(int peer, const std::string& how) {
  if (peer == topology_.rank() || gone_[peer].detached) return;
  if (!gone_[peer].gone) OnPeerGone(peer, /*left=*/false, how);
  SweepLocked();
  matcher_.DropIf([&](const Arrival& arrival) { return arrival.peer == peer; });
  std::erase_if(aborts_, [&](const Abort& abort) { return abort.peer == peer; });
  mail_.remove_if([&](const auto& mail) {
    if (mail->over) return true;
    if ((mail->incoming ? mail->recv.peer : mail->send.peer) != peer) return false;
    if (mail->incoming) {
      CancelRecv(mail->recv);
    } else {
      CancelSend(mail->send);
    }
    return true;
  });
  if (shm_ != nullptr && routes_[peer] == shm_) shm_->Detach(peer);
  if (ucx_ != nullptr && routes_[peer] == ucx_) ucx_->Detach(peer);
  gone_[peer].detached = true;
  gone_[peer].how = how;
}

}  // namespace cohort::comm
