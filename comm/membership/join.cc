// How a process joins a live group.
#include <unistd.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "comm/check.h"
#include "comm/engine.h"
#include "comm/policy.h"
#include "comm/transport/self/self_transport.h"
#include "comm/transport/shm/shm_transport.h"
#include "comm/transport/ucx/ucx_transport.h"

namespace cohort::comm {

absl::Status RefuseNewcomers(JoinBoard& board, absl::string_view why) {
  COHORT_ASSIGN_OR_RETURN(const auto waiting, board.Waiting());
  for (const auto& [name, text] : waiting) {
    COHORT_RETURN_IF_ERROR(
        board.Answer(name, Encode(Invitation{.decision = {}, .tuning = "", .refusal = std::string(why)})));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::pair<std::shared_ptr<Engine>, std::shared_ptr<Group>>> Engine::Join(JoinBoard& board,
                                                                                        absl::Time deadline,
                                                                                        std::string* tuning) {
  // Its number is only known once it is invited.
  auto engine = std::shared_ptr<Engine>(new Engine(Topology(0, {Here()})));
  COHORT_RETURN_IF_ERROR(engine->OpenAsNewcomer());
  const std::string name = absl::StrCat(engine->card_.host, " ", getpid(), " ", NowNanos());
  COHORT_RETURN_IF_ERROR(board.Post(name, Encode(engine->card_)));

  std::optional<std::string> answer;
  for (absl::Duration pause = policy::kRendezvousFirstPause; !answer.has_value();
       pause = std::min(2 * pause, policy::kJoinLongestPause)) {
    COHORT_ASSIGN_OR_RETURN(answer, board.Answered(name));
    if (answer.has_value()) break;
    if (absl::Now() >= deadline) {
      (void)board.Withdraw(name);
      return absl::DeadlineExceededError(
          "no group took this process in: its members take in newcomers where they call Grow");
    }
    absl::SleepFor(std::min(pause, deadline - absl::Now()));
  }
  (void)board.Withdraw(name);
  COHORT_ASSIGN_OR_RETURN(const Invitation invitation, DecodeInvitation(*answer));
  if (!invitation.refusal.empty()) return ExcludedStatus(Exclusion::kRefused, invitation.refusal);
  const EditDecision& decision = invitation.decision;
  *tuning = invitation.tuning;

  const int self = invitation.member;
  std::vector<Location> locations(decision.next_member, Location{"?"});
  for (const auto& [member, card] : decision.cards) locations[member] = card.location;
  {
    // A thread answers peers already.
    const std::lock_guard lock(engine->mutex_);
    engine->topology_ = Topology(self, locations);
    engine->next_member_ = decision.next_member;
    engine->routes_.resize(decision.next_member, nullptr);
    engine->gone_.resize(decision.next_member);
    engine->matcher_.Grow(decision.next_member);
    engine->transports_.push_back(std::make_unique<SelfTransport>(self, engine.get()));
    engine->routes_[self] = engine->transports_.back().get();
    if (engine->shm_ != nullptr) engine->shm_->SetRank(self);
    if (engine->ucx_ != nullptr) engine->ucx_->SetRank(self);
    for (const auto& [member, card] : decision.cards) engine->ReachLocked(member, card);
  }
  const auto place = std::find(decision.members.begin(), decision.members.end(), self);
  auto group = engine->AddGroup(decision.context, decision.members,
                                static_cast<int>(place - decision.members.begin()));
  group->epoch = decision.epoch;
  return std::pair(std::move(engine), std::move(group));
}

}  // namespace cohort::comm
