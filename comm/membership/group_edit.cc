// The communicator's edits: agree, adopt, meet the newcomers; and again where somebody was lost meanwhile.
#include <algorithm>

#include "absl/time/clock.h"
#include "comm/check.h"
#include "comm/group_communicator.h"
#include "comm/membership/quorum.h"
#include "comm/policy.h"
#include "comm/transport/shm/shm_transport.h"

namespace cohort::comm {
namespace {

using Waiting = std::vector<std::pair<std::string, MemberCard>>;

// Those at the board that still live, as far as one can see from here.
absl::StatusOr<Waiting> LookAtBoard(JoinBoard& board, const MemberCard& own) {
  COHORT_ASSIGN_OR_RETURN(const auto posts, board.Waiting());
  Waiting waiting;
  for (const auto& [name, text] : posts) {
    absl::StatusOr<MemberCard> card = DecodeCard(text);
    if (!card.ok()) continue;
    if (card->host == own.host && !card->shm.empty() && !shm::ShmTransport::Lives(card->shm)) {
      (void)board.Withdraw(name);
      continue;
    }
    waiting.emplace_back(name, *std::move(card));
  }
  return waiting;
}

absl::StatusOr<Waiting> WaitForNewcomers(const EditOptions& options, const MemberCard& own) {
  if (options.board == nullptr) return Waiting();
  const absl::Time deadline = absl::Now() + options.patience;
  for (absl::Duration pause = policy::kRendezvousFirstPause;;
       pause = std::min(2 * pause, policy::kJoinLongestPause)) {
    COHORT_ASSIGN_OR_RETURN(Waiting waiting, LookAtBoard(*options.board, own));
    if (static_cast<int>(waiting.size()) >= options.at_least || absl::Now() >= deadline) return waiting;
    absl::SleepFor(pause);
  }
}

}  // namespace

absl::StatusOr<MembershipChange> GroupCommunicator::Edit(const EditOptions& wanted) {
  EditOptions options = wanted;
  if (options.patience <= absl::ZeroDuration()) options.patience = options_.timeout;
  if (options.board != nullptr && !group_->world) {
    return absl::UnimplementedError("only the world can take in newcomers: grow that, and split it again");
  }
  COHORT_ASSIGN_OR_RETURN(Waiting newcomers, WaitForNewcomers(options, engine_->card()));
  const bool remote = std::any_of(newcomers.begin(), newcomers.end(), [&](const auto& newcomer) {
    return PathBetween(engine_->card(), newcomer.second) == Path::kNone;
  });
  const bool alone = options.board != nullptr && engine_->card().shm.empty();
  if (remote || alone) engine_->OpenNetwork();
  if (alone && engine_->card().ucx.empty()) {
    return absl::UnimplementedError(
        "newcomers are reached over shared memory or UCX, and this rank has neither: does "
        "COHORT_TRANSPORT forbid them?");
  }
  const std::vector<int> before = group_->members;
  const std::vector<int> none;
  std::vector<int> left;
  bool tied = false;
  for (int attempt = 0; attempt < policy::kEditAttempts; ++attempt) {
    // Each silent member costs one patience.
    const absl::Time deadline = absl::Now() + options.patience * (static_cast<double>(size()) + 2);
    COHORT_ASSIGN_OR_RETURN(const EditDecision decision,
                            engine_->Agree(group_, options, std::move(newcomers), deadline));
    newcomers.clear();
    for (const Newcomer& newcomer : decision.newcomers) {
      options.counted_below = BoundsWithout(std::move(options.counted_below), newcomer.member);
    }
    tied = tied || decision.tied;
    left.insert(left.end(), decision.left.begin(), decision.left.end());
    const absl::Status adopted = engine_->Adopt(group_, decision);
    if (!adopted.ok()) {
      if (options.leave) return Changed(before, none, decision.epoch, left);
      return adopted;
    }
    Refresh();
    if (!decision.newcomers.empty() && rank() < policy::kInviters) {
      for (const Newcomer& newcomer : decision.newcomers) {
        // Where nobody can write, the newcomers do not come, and are taken out again below.
        (void)options.board->Answer(
            newcomer.name,
            Encode(Invitation{newcomer.member, decision, EncodeForNewcomer(*tuning_), /*refusal=*/""}));
      }
    }
    absl::Status met;
    if (!decision.newcomers.empty()) met = Barrier().Wait(absl::Now() + options.patience);
    if (met.ok() && !engine_->AnyGone(group_)) {
      MembershipChange change = Changed(before, group_->members, decision.epoch, left);
      change.tied = tied;
      return change;
    }
    engine_->Revoke(group_,
                    absl::AbortedError("members were lost during the edit of the group: edit it again"));
  }
  return absl::UnavailableError("members kept being lost while the group was edited");
}

absl::Status GroupCommunicator::MeetAsNewcomer() {
  const absl::Status met = Barrier().Wait();
  if (met.ok()) return met;
  // Somebody was lost meanwhile: all go on without. Over a network it may be this side that is cut off; who counts the
  // others know.
  return Edit({.quorum = topology().num_hosts() > 1, .counted_below = {0}}).status();
}

MembershipChange GroupCommunicator::Changed(const std::vector<int>& before, const std::vector<int>& after,
                                            uint32_t epoch, const std::vector<int>& left) const {
  MembershipChange change;
  change.epoch = epoch;
  change.rank = after.empty() ? -1 : rank();
  change.size = static_cast<int>(after.size());
  for (const int member : after) {
    const auto at = std::find(before.begin(), before.end(), member);
    change.previous_rank.push_back(at == before.end() ? -1 : static_cast<int>(at - before.begin()));
  }
  for (int rank = 0; rank < static_cast<int>(before.size()); ++rank) {
    if (std::find(after.begin(), after.end(), before[rank]) != after.end()) continue;
    const bool went = std::find(left.begin(), left.end(), before[rank]) != left.end();
    if (went) change.left.push_back(rank);
    if (!went && !after.empty()) change.lost.push_back(rank);
  }
  return change;
}

void GroupCommunicator::Refresh() {
  const std::lock_guard lock(mutex_);
  topology_ = engine_->topology().Group(group_->members, group_->rank);
  MakeTunerLocked();
  sent_.clear();
  received_.clear();
}

absl::StatusOr<MembershipChange> GroupCommunicator::Shrink(EditOptions options) {
  options.board = nullptr;
  return Edit(options);
}

absl::StatusOr<MembershipChange> GroupCommunicator::Grow(std::shared_ptr<JoinBoard> board,
                                                         EditOptions options) {
  if (board == nullptr) return absl::InvalidArgumentError("growing needs a join board");
  options.board = std::move(board);
  return Edit(options);
}

void GroupCommunicator::Abort(const absl::Status& why) {
  engine_->Revoke(group_, why.ok() ? absl::AbortedError("aborted") : why, /*parts=*/true);
}

}  // namespace cohort::comm
