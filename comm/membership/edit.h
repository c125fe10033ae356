// Edits of a live group: who goes, who comes, and what a member learns of it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "comm/membership/join_board.h"

namespace cohort::comm {

// Equal on all ranks that call the edit, but for `leave`.
struct EditOptions {
  // Members that do not come to the edit, or fall silent in it, for this long are taken to be lost. Zero: the
  // communicator's timeout.
  absl::Duration patience = absl::ZeroDuration();
  // Go on only with a majority of the members before the edit (or with half of them, the one of lowest number
  // among them); fail with FAILED_PRECONDITION on a side that has fewer. Without it, two halves that cannot hear
  // each other both go on.
  bool quorum = false;
  // With `quorum`: only members of lower numbers than each of these count, those below each bound by themselves; newcomers
  // have the highest numbers. Empty: all members count. Members may differ in their bounds as long as those of any two
  // have one in common. A bound of 0: this rank does not know who counts, and decides nothing where it would have to lead.
  std::vector<int> counted_below = {};
  // With `quorum`: where exactly half of the members are left, somebody outside says whether that half goes on, in place of
  // the lowest number. Called on the half's leader with its members; must say yes to one half only, however often both
  // ask, unless the members of the half that had it can be known to have stopped (MembershipChange::tied), and answer in
  // well under `patience`. All or no ranks have one.
  std::function<bool(const std::vector<int>& half)> tie = nullptr;
  // This rank goes.
  bool leave = false;
  // Where processes that wait to join are found. Null: nobody joins.
  std::shared_ptr<JoinBoard> board = nullptr;
  // Take in at most so many, and wait (up to `patience`) until so many are there.
  int at_most = 1 << 20;
  int at_least = 0;
  // Newcomers take the ranks of those who go; else they follow the others.
  bool replace = false;
};

// What an edit has done, the same on all members but for `previous_rank`.
struct MembershipChange {
  uint32_t epoch = 0;
  int rank = -1;  // this process's new rank; -1: it has left
  int size = 0;
  // By new rank: the rank before; -1: a newcomer.
  std::vector<int> previous_rank;
  // Ranks before that are no longer there, ascending: gone without having come to the edit, and of their own will.
  std::vector<int> lost;
  std::vector<int> left;
  // Half of the members have decided, so the others have a quorum too where somebody says yes to them: EditOptions::tie.
  bool tied = false;
};

// Why a process has no group any more in which it could go on.
enum class Exclusion : uint8_t {
  kLeft = 1,      // it has left of its own will
  kRemoved = 2,   // the others went on without it: it may join again
  kNoQuorum = 3,  // it cannot reach enough of the others, which may go on: it may try again, or join again
  kRefused = 4,   // it was to join, and is not taken in (RefuseNewcomers)
};
// Of the FAILED_PRECONDITION of an edit or any other operation that ends for this reason, on this process; none: another
// reason. Kept where a status is passed on or copied; a status made anew of its words has none.
std::optional<Exclusion> ExclusionOf(const absl::Status& status);
// FAILED_PRECONDITION of this kind.
absl::Status ExcludedStatus(Exclusion exclusion, absl::string_view message);

}  // namespace cohort::comm
