// A journal in etcd. Below PREFIX/:
//   head                 "NEXT TOKEN": the index of the next record, and a random word of who wrote it last; every write
//                        is one transaction that compares the head with what it was and replaces it
//   record/INDEX         what one Append has brought, or where its parts are
//   snapshot             "INDEX": what the records before it amount to, or where its parts are
//   part/TOKEN/NUMBER    pieces of texts that are too long for one value; of no meaning until something names them
#include <random>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "comm/check.h"
#include "runtime/elastic/coordinator/etcd.h"
#include "runtime/elastic/coordinator/journal.h"
#include "runtime/elastic/coordinator/policy.h"

namespace cohort::cluster {
namespace {

constexpr char kInline = 'I', kParts = 'P';

std::string Token() {
  std::random_device device;
  return absl::StrFormat("%08x%08x", device(), device());
}

class EtcdJournal : public Journal {
 public:
  EtcdJournal(std::vector<std::string> endpoints, std::string prefix)
      : etcd_(std::move(endpoints)), prefix_(std::move(prefix)) {}

  std::string name() const override { return absl::StrCat("etcd ", prefix_); }

  absl::StatusOr<Contents> Load() override {
    loaded_ = false;
    COHORT_RETURN_IF_ERROR(Settle());
    // The head last: who writes meanwhile is noticed.
    Contents contents;
    COHORT_ASSIGN_OR_RETURN(const auto before, etcd_.Get(Key("head")));
    COHORT_ASSIGN_OR_RETURN(const auto snapshot, etcd_.Get(Key("snapshot")));
    uint64_t first = 0;
    if (snapshot.has_value()) {
      const std::pair<std::string, std::string> halves = absl::StrSplit(*snapshot, absl::MaxSplits(' ', 1));
      if (!absl::SimpleAtoi(halves.first, &first)) return Damaged("snapshot");
      COHORT_ASSIGN_OR_RETURN(contents.snapshot, Fetch(halves.second, "snapshot"));
    }
    contents.next = first;
    COHORT_ASSIGN_OR_RETURN(const auto pairs,
                            etcd_.List(Key("record/"), RecordKey(first), policy::kEtcdInlinePage));
    for (const auto& [key, value] : pairs) {
      if (key != RecordKey(contents.next)) return Damaged(RecordKey(contents.next));
      COHORT_ASSIGN_OR_RETURN(const std::string text, Fetch(value, key));
      const size_t count = contents.records.size();
      if (!UnpackRecords(text, contents.records) || contents.records.size() == count) return Damaged(key);
      contents.next += contents.records.size() - count;
    }
    COHORT_ASSIGN_OR_RETURN(head_, etcd_.Get(Key("head")));
    if (head_ != before) {
      return absl::UnavailableError(
          absl::StrCat("another coordinator writes to ", name(), " at this moment"));
    }
    if (!absl::StartsWith(head_.value_or("0 "), absl::StrCat(contents.next, " "))) {
      return Damaged(Key("head"));
    }
    next_ = contents.next;
    loaded_ = true;
    return contents;
  }

  absl::Status Append(uint64_t index, absl::Span<const std::string> records) override {
    COHORT_RETURN_IF_ERROR(CheckTurn(index));
    COHORT_ASSIGN_OR_RETURN(std::string value, Store(PackRecords(records)));
    return Write(index + records.size(), {{RecordKey(index), std::move(value)}});
  }

  absl::Status Compact(uint64_t index, absl::string_view snapshot) override {
    COHORT_RETURN_IF_ERROR(CheckTurn(index));
    COHORT_ASSIGN_OR_RETURN(std::string value, Store(snapshot));
    const std::string kept = absl::StartsWith(value, std::string(1, kParts)) ? PartsPrefix(value) : "";
    COHORT_RETURN_IF_ERROR(Write(index, {{Key("snapshot"), absl::StrCat(index, " ", value)}}));
    // What is left over where one of these fails is read by nobody; parts go with the next snapshot.
    (void)etcd_.Delete(RecordKey(0), RecordKey(index));
    (void)etcd_.Delete(Key("part/"), kept.empty() ? PrefixEnd(Key("part/")) : kept);
    if (!kept.empty()) (void)etcd_.Delete(PrefixEnd(kept), PrefixEnd(Key("part/")));
    return absl::OkStatus();
  }

 private:
  std::string Key(absl::string_view name) const { return absl::StrCat(prefix_, "/", name); }
  // In the order of the numbers.
  std::string RecordKey(uint64_t index) const { return Key(absl::StrFormat("record/%020u", index)); }
  // Of a value that says where its parts are: P, the token, how many.
  std::string PartsPrefix(absl::string_view value) const {
    return Key(absl::StrCat("part/", value.substr(1, value.find(' ') - 1), "/"));
  }

  absl::Status Damaged(absl::string_view key) const {
    return absl::DataLossError(absl::StrCat(
        "the journal in ", name(), " is damaged: the key ", key,
        " is not what it must be. Restore it, or name another prefix: members that live join again"));
  }

  absl::Status CheckTurn(uint64_t index) const {
    if (loaded_ && index == next_) return absl::OkStatus();
    return absl::FailedPreconditionError(
        absl::StrCat("record ", index, " cannot be written to ", name(),
                     loaded_ ? absl::StrCat(", whose next one is ", next_) : ", which is to be read first"));
  }

  // The value of a text; writes its parts where it is too long for one.
  absl::StatusOr<std::string> Store(absl::string_view text) {
    if (text.size() <= policy::kEtcdInlineBytes) return absl::StrCat(std::string(1, kInline), text);
    const std::string token = Token();
    int parts = 0;
    for (; !text.empty(); text.remove_prefix(std::min(text.size(), policy::kEtcdPartBytes)), ++parts) {
      COHORT_RETURN_IF_ERROR(etcd_.Put(Key(absl::StrFormat("part/%s/%08d", token, parts)),
                                       std::string(text.substr(0, policy::kEtcdPartBytes))));
    }
    return absl::StrCat(std::string(1, kParts), token, " ", parts);
  }

  absl::StatusOr<std::string> Fetch(const std::string& value, absl::string_view key) {
    if (value.empty()) return Damaged(key);
    if (value[0] == kInline) return value.substr(1);
    const size_t space = value.find(' ');
    size_t count = 0;
    if (value[0] != kParts || space == std::string::npos ||
        !absl::SimpleAtoi(value.substr(space + 1), &count)) {
      return Damaged(key);
    }
    COHORT_ASSIGN_OR_RETURN(const auto parts, etcd_.List(PartsPrefix(value), "", policy::kEtcdPartPage));
    if (parts.size() != count) return Damaged(key);
    std::string text;
    for (const auto& [name, part] : parts) text += part;
    return text;
  }

  // A write whose answer is lost may still be on its way, and done after the head was looked at. It is kept from that by
  // another head in place of the one that it compares with; where the head is another already, it came or never will.
  absl::Status Settle() {
    while (lost_) {
      COHORT_ASSIGN_OR_RETURN(const auto present, etcd_.Get(Key("head")));
      if (present == head_) {
        const std::string next = head_.value_or("0 ");
        COHORT_ASSIGN_OR_RETURN(
            const bool done,
            etcd_.PutIf(Key("head"), head_,
                        {{Key("head"), absl::StrCat(next.substr(0, next.find(' ')), " ", Token())}}));
        if (!done) continue;  // it came between the two, or another coordinator has written
      }
      lost_ = false;
    }
    return absl::OkStatus();
  }

  // One transaction. Where its answer is lost, the head tells whether it was done.
  absl::Status Write(uint64_t next, std::vector<std::pair<std::string, std::string>> pairs) {
    const std::string head = absl::StrCat(next, " ", Token());
    pairs.emplace_back(Key("head"), head);
    loaded_ = false;  // until this is known to be done
    absl::StatusOr<bool> done = etcd_.PutIf(Key("head"), head_, pairs);
    if (!done.ok() && !absl::IsUnavailable(done.status())) return done.status();
    if (!done.ok() || !*done) {
      lost_ = !done.ok();
      const auto present = etcd_.Get(Key("head"));
      if (!present.ok()) return done.ok() ? present.status() : done.status();
      if (*present != head) {
        if (!done.ok() && *present == head_) return done.status();
        return absl::FailedPreconditionError(
            absl::StrCat("another coordinator has taken over the state in ", name()));
      }
    }
    lost_ = false;
    head_ = head;
    next_ = next;
    loaded_ = true;
    return absl::OkStatus();
  }

  Etcd etcd_;
  const std::string prefix_;
  bool loaded_ = false;
  bool lost_ = false;  // the last write compared with head_, and may yet be done
  std::optional<std::string> head_;
  uint64_t next_ = 0;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Journal>> OpenEtcdJournal(const std::string& place) {
  const size_t slash = place.find('/');
  const std::string prefix = slash == std::string::npos ? "" : place.substr(slash);
  std::vector<std::string> endpoints = absl::StrSplit(place.substr(0, slash), ',', absl::SkipEmpty());
  bool fine = prefix.size() > 1 && !endpoints.empty();
  for (const std::string& endpoint : endpoints) {
    const size_t colon = endpoint.rfind(':');
    int port = 0;
    fine = fine && colon != std::string::npos && colon > 0 &&
           absl::SimpleAtoi(endpoint.substr(colon + 1), &port) && port > 0 && port < 65536;
  }
  if (!fine) {
    return absl::InvalidArgumentError(
        absl::StrCat("etcd://", place, " is no place in etcd; write etcd://HOST:PORT/PREFIX"));
  }
  return std::make_unique<EtcdJournal>(std::move(endpoints), prefix);
}

}  // namespace cohort::cluster
