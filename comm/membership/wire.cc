#include "comm/membership/wire.h"

#include <concepts>
#include <cstring>
#include <type_traits>

#include "absl/strings/str_cat.h"
#include "comm/policy.h"

namespace cohort::comm {
namespace {

// Both directions walk the same list of fields, Fields below. Little-endian, as the machines are.
class Writer {
 public:
  template <typename T>
  requires std::is_arithmetic_v<T> || std::is_enum_v<T>
  void operator()(const T& value) { text_.append(reinterpret_cast<const char*>(&value), sizeof(value)); }
  void operator()(const std::string& value) {
    (*this)(static_cast<uint64_t>(value.size()));
    text_.append(value);
  }
  template <typename T>
  void operator()(const std::vector<T>& values);

  std::string Take() { return std::move(text_); }

 private:
  std::string text_;
};

class Reader {
 public:
  explicit Reader(absl::string_view text) : left_(text) {}

  template <typename T>
  requires std::is_arithmetic_v<T> || std::is_enum_v<T>
  void operator()(T& value) {
    if (!Has(sizeof(value))) return;
    std::memcpy(&value, left_.data(), sizeof(value));
    left_.remove_prefix(sizeof(value));
  }
  void operator()(std::string& value) {
    uint64_t bytes = 0;
    (*this)(bytes);
    if (!Has(bytes)) return;
    value = std::string(left_.substr(0, bytes));
    left_.remove_prefix(bytes);
  }
  template <typename T>
  void operator()(std::vector<T>& values);

  bool Has(uint64_t bytes) {
    ok_ = ok_ && bytes <= left_.size();
    return ok_;
  }
  bool whole() const { return ok_ && left_.empty(); }

 private:
  absl::string_view left_;
  bool ok_ = true;
};

template <typename Visit, typename T>
concept Like = std::same_as<std::remove_const_t<Visit>, T>;

template <typename Archive, Like<MemberCard> T>
void Fields(Archive& archive, T& card) {
  archive(card.host);
  archive(card.location.host);
  archive(card.location.socket);
  archive(card.location.numa);
  archive(card.shm);
  archive(card.ucx);
}
template <typename Archive, Like<Newcomer> T>
void Fields(Archive& archive, T& newcomer) {
  archive(newcomer.name);
  archive(newcomer.member);
}
template <typename Archive, Like<std::pair<int, MemberCard>> T>
void Fields(Archive& archive, T& entry) {
  archive(entry.first);
  Fields(archive, entry.second);
}
template <typename Archive, Like<int> T>
void Fields(Archive& archive, T& value) {
  archive(value);
}
template <typename Archive, Like<EditVote> T>
void Fields(Archive& archive, T& vote) {
  archive(vote.next_context);
  archive(vote.next_member);
  archive(vote.leaves);
  Fields(archive, vote.card);
}
template <typename Archive, Like<EditDecision> T>
void Fields(Archive& archive, T& decision) {
  archive(decision.epoch);
  archive(decision.context);
  archive(decision.next_member);
  archive(decision.members);
  archive(decision.left);
  archive(decision.newcomers);
  archive(decision.cards);
}
template <typename Archive, Like<Invitation> T>
void Fields(Archive& archive, T& invitation) {
  archive(invitation.member);
  Fields(archive, invitation.decision);
  archive(invitation.tuning);
  archive(invitation.refusal);
}
template <typename Archive, Like<AgreementMessage> T>
void Fields(Archive& archive, T& message) {
  archive(message.kind);
  archive(message.round);
  archive(message.accepted_round);
  archive(message.value);
  archive(message.vote);
  archive(message.suspects);
  archive(message.tied);
}

template <typename T>
void Writer::operator()(const std::vector<T>& values) {
  (*this)(static_cast<uint64_t>(values.size()));
  for (const T& value : values) Fields(*this, value);
}

template <typename T>
void Reader::operator()(std::vector<T>& values) {
  uint64_t count = 0;
  (*this)(count);
  // Each takes at least a byte: no text of this length makes room for more.
  if (!Has(count)) return;
  values.resize(count);
  for (T& value : values) Fields(*this, value);
}

template <typename T>
std::string EncodeFields(const T& value) {
  Writer writer;
  Fields(writer, value);
  return writer.Take();
}

absl::Status Malformed(absl::string_view what) {
  return absl::InvalidArgumentError(
      absl::StrCat("malformed ", what, ": is it from another version of this library?"));
}

template <typename T>
absl::StatusOr<T> DecodeFields(absl::string_view what, absl::string_view text) {
  T value;
  Reader reader(text);
  Fields(reader, value);
  if (!reader.whole()) return Malformed(what);
  return value;
}

bool Sound(const EditDecision& decision) {
  for (const int member : decision.members) {
    if (member < 0 || member >= decision.next_member) return false;
  }
  for (const Newcomer& newcomer : decision.newcomers) {
    if (newcomer.member < 0 || newcomer.member >= decision.next_member) return false;
  }
  for (const auto& [member, card] : decision.cards) {
    if (member < 0 || member >= decision.next_member) return false;
  }
  return decision.next_member >= 0 && decision.next_member <= policy::kMaxMembers;
}

}  // namespace

Path PathBetween(const MemberCard& a, const MemberCard& b) {
  if (a.host == b.host && !a.shm.empty() && !b.shm.empty()) return Path::kSharedMemory;
  return !a.ucx.empty() && !b.ucx.empty() ? Path::kUcx : Path::kNone;
}

std::string Encode(const MemberCard& card) { return EncodeFields(card); }
std::string Encode(const EditVote& vote) { return EncodeFields(vote); }
std::string Encode(const EditDecision& decision) { return EncodeFields(decision); }
std::string Encode(const Invitation& invitation) { return EncodeFields(invitation); }

std::string Encode(const MembershipMessage& message) {
  Writer writer;
  writer(message.kind);
  if (message.kind == MembershipMessage::Kind::kAgreement) {
    Fields(writer, message.agreement);
  } else {
    writer(static_cast<int>(message.status.code()));
    writer(std::string(message.status.message()));
  }
  return writer.Take();
}

absl::StatusOr<MemberCard> DecodeCard(absl::string_view text) {
  return DecodeFields<MemberCard>("card", text);
}

absl::StatusOr<EditVote> DecodeEditVote(absl::string_view text) {
  return DecodeFields<EditVote>("vote", text);
}

absl::StatusOr<EditDecision> DecodeEditDecision(absl::string_view text) {
  auto decision = DecodeFields<EditDecision>("decision", text);
  if (decision.ok() && !Sound(*decision)) return Malformed("decision");
  return decision;
}

absl::StatusOr<Invitation> DecodeInvitation(absl::string_view text) {
  auto invitation = DecodeFields<Invitation>("invitation", text);
  if (!invitation.ok() || !invitation->refusal.empty()) return invitation;
  bool invited = false;
  for (const int member : invitation->decision.members) invited |= member == invitation->member;
  if (!invited || !Sound(invitation->decision)) return Malformed("invitation");
  return invitation;
}

absl::StatusOr<MembershipMessage> DecodeMembershipMessage(absl::string_view text) {
  MembershipMessage message;
  Reader reader(text);
  reader(message.kind);
  if (message.kind == MembershipMessage::Kind::kAgreement) {
    Fields(reader, message.agreement);
    if (message.agreement.kind > AgreementMessage::Kind::kNoQuorum) return Malformed("membership message");
  } else if (message.kind <= MembershipMessage::Kind::kRevokeParts) {
    int code = 0;
    std::string text_of_status;
    reader(code);
    reader(text_of_status);
    message.status = absl::Status(static_cast<absl::StatusCode>(code), text_of_status);
  } else {
    return Malformed("membership message");
  }
  if (!reader.whole()) return Malformed("membership message");
  return message;
}

}  // namespace cohort::comm
