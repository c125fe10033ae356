#include "comm/membership/compose.h"

#include <algorithm>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "comm/membership/quorum.h"

namespace cohort::comm {
namespace {

// Takes members out until no two that stay have lost each other.
void KeepConnected(const std::map<int, Agreement::Vote>& votes, std::set<int>* kept) {
  for (;;) {
    std::map<int, std::set<int>> broken;
    for (const int member : *kept) {
      for (const int other : votes.at(member).lost) {
        if (!kept->contains(other)) continue;
        broken[member].insert(other);
        broken[other].insert(member);
      }
    }
    if (broken.empty()) return;
    const auto worst = std::max_element(broken.begin(), broken.end(), [](const auto& a, const auto& b) {
      return std::pair(a.second.size(), a.first) < std::pair(b.second.size(), b.first);
    });
    kept->erase(worst->first);
  }
}

}  // namespace

EditDecision ComposeDecision(const EditedGroup& before, const std::map<int, Agreement::Vote>& votes,
                             const std::vector<std::pair<std::string, MemberCard>>& newcomers,
                             const EditOptions& options) {
  EditDecision decision;
  decision.epoch = before.epoch + 1;
  std::set<int> kept;
  for (const auto& [member, vote] : votes) {
    const absl::StatusOr<EditVote> said = DecodeEditVote(vote.text);
    if (!said.ok()) continue;
    decision.context = std::max(decision.context, said->next_context);
    decision.next_member = std::max(decision.next_member, said->next_member);
    if (said->leaves) {
      decision.left.push_back(member);
    } else {
      kept.insert(member);
    }
    decision.cards.emplace_back(member, said->card);
  }
  KeepConnected(votes, &kept);
  std::erase_if(decision.cards, [&](const auto& entry) { return !kept.contains(entry.first); });

  std::vector<int> fresh;
  // Half of the members may have to stop again (EditOptions::tie): who joins them would not know.
  std::set<int> voters;
  for (const auto& [member, vote] : votes) voters.insert(member);
  const bool half = options.quorum && ShareOf(voters, before.members, options.counted_below) == Share::kHalf;
  for (const auto& [name, card] : newcomers) {
    if (half || static_cast<int>(fresh.size()) >= options.at_most) break;
    const bool reached = std::all_of(decision.cards.begin(), decision.cards.end(), [&](const auto& entry) {
      return PathBetween(entry.second, card) != Path::kNone;
    });
    if (!reached) continue;
    const int member = decision.next_member++;
    fresh.push_back(member);
    decision.newcomers.push_back({name, member});
    decision.cards.emplace_back(member, card);
  }
  if (fresh.empty()) decision.cards.clear();
  auto next = fresh.begin();
  for (const int member : before.members) {
    if (kept.contains(member)) {
      decision.members.push_back(member);
    } else if (options.replace && next != fresh.end()) {
      decision.members.push_back(*next++);
    }
  }
  decision.members.insert(decision.members.end(), next, fresh.end());
  return decision;
}

absl::Status RemovedStatus(int member, const EditDecision& decision) {
  const std::vector<int>& left = decision.left;
  if (std::find(left.begin(), left.end(), member) != left.end()) {
    return ExcludedStatus(Exclusion::kLeft,
                          absl::StrCat("rank ", member, " has left the group, which is in epoch ",
                                       decision.epoch, " without it"));
  }
  return ExcludedStatus(
      Exclusion::kRemoved,
      absl::StrCat("rank ", member, " is not a member of the group any more: ranks ",
                   absl::StrJoin(decision.members, ", "), " went on without it in epoch ", decision.epoch,
                   ", as it did not come to the edit in time or could not reach them. Join again"));
}

}  // namespace cohort::comm
