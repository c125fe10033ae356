// What membership says, in bytes: between members in messages, to newcomers through a join board.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "comm/membership/agreement.h"
#include "comm/topology.h"

namespace cohort::comm {

// How one member can be reached: what it tells at the rendezvous, or puts on the join board.
struct MemberCard {
  std::string host;  // HostIdentity()
  Location location;
  // By name of the transport; none that it does not use.
  std::string shm, ucx;
};

// How two members that meet while the group lives reach each other: both conclude the same from their cards.
enum class Path : uint8_t { kNone, kSharedMemory, kUcx };
Path PathBetween(const MemberCard& a, const MemberCard& b);

// A process that is taken in, by its name on the join board.
struct Newcomer {
  std::string name;
  int member = -1;  // the number given to it
};

// What a member brings to an edit of its group.
struct EditVote {
  uint32_t next_context = 0;
  int next_member = 0;
  bool leaves = false;
  MemberCard card;
};

// The next form of a group. `members` in the order of ranks.
struct EditDecision {
  uint32_t epoch = 0;
  uint32_t context = 0;
  int next_member = 0;
  std::vector<int> members;
  std::vector<int> left;            // of the members before, those that go of their own will
  std::vector<Newcomer> newcomers;  // those of `members` that are new
  // Of all members, where there are newcomers.
  std::vector<std::pair<int, MemberCard>> cards;
  // Of how it was decided, not of what: it travels beside it (AgreementMessage::tied).
  bool tied = false;
};

// What a newcomer must know.
struct Invitation {
  int member = -1;
  EditDecision decision;
  std::string tuning;   // EncodeForNewcomer of comm/tuner/agreement.h
  std::string refusal;  // instead: why it is not taken in
};

// A message between members about their group.
struct MembershipMessage {
  // kRevokeParts: also in the groups that were split from this one.
  enum class Kind : uint8_t { kAgreement, kRevoke, kRevokeParts };
  Kind kind = Kind::kAgreement;
  AgreementMessage agreement;
  absl::Status status;  // revoke: why the operations of this epoch end
};

std::string Encode(const MemberCard& card);
std::string Encode(const EditVote& vote);
std::string Encode(const EditDecision& decision);
std::string Encode(const Invitation& invitation);
std::string Encode(const MembershipMessage& message);

// INVALID_ARGUMENT where the text is not what Encode made: cut short, too long, or out of range.
absl::StatusOr<MemberCard> DecodeCard(absl::string_view text);
absl::StatusOr<EditVote> DecodeEditVote(absl::string_view text);
absl::StatusOr<EditDecision> DecodeEditDecision(absl::string_view text);
absl::StatusOr<Invitation> DecodeInvitation(absl::string_view text);
absl::StatusOr<MembershipMessage> DecodeMembershipMessage(absl::string_view text);

}  // namespace cohort::comm
