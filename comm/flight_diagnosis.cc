#include "comm/flight_diagnosis.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "comm/late_ranks.h"

namespace cohort::comm {
namespace {

using ByRank = std::map<int, const FlightRecord*>;

std::string Ranks(const std::vector<int>& ranks) {
  return absl::StrCat(ranks.size() == 1 ? "rank " : "ranks ", absl::StrJoin(ranks, ", "));
}

std::string What(const FlightOperation& operation) {
  if (operation.peer >= 0) {
    return absl::StrCat(operation.sends ? "send to" : "recv from", " rank ", operation.peer, ", tag ",
                        operation.tag, ", of ", operation.count, " ", operation.dtype);
  }
  std::string text = operation.operation;
  if (operation.operation != "barrier") absl::StrAppend(&text, " of ", operation.count, " ", operation.dtype);
  if (operation.operation == "all-reduce" || operation.operation == "reduce-scatter") {
    absl::StrAppend(&text, " (", operation.reduce, ")");
  }
  return text;
}

// What must be equal on all ranks.
std::string Signed(const FlightOperation& operation) {
  return absl::StrCat(What(operation), " ", operation.reduce, " ", operation.digest, " ", operation.codec);
}

// The first operation in flight, or that failed with no success in its group after it.
const FlightOperation* FirstStuck(const FlightRecord& record) {
  std::map<uint32_t, uint64_t> successes;  // by group, the number of the last
  for (const FlightOperation& operation : record.operations) {
    if (operation.status == "OK") successes[operation.context] = operation.number;
  }
  for (const FlightOperation& operation : record.operations) {
    if (operation.status == "OK") continue;
    const auto success = successes.find(operation.context);
    const bool recovered = success != successes.end() && success->second > operation.number;
    if (operation.ended == 0 || !recovered) return &operation;
  }
  return nullptr;
}

// Collectives begun by the rank in the group; nullopt where its record does not know the group.
std::optional<uint32_t> Begun(const FlightRecord& record, uint32_t context) {
  for (const FlightGroup& group : record.groups) {
    if (group.context == context) return group.begun;
  }
  return std::nullopt;
}

Diagnosis::Stuck Examine(const FlightRecord& record, const FlightOperation& operation,
                         const ByRank& by_rank) {
  Diagnosis::Stuck stuck;
  stuck.rank = record.rank;
  stuck.operation = operation;
  stuck.awaits = operation.awaits;
  if (operation.peer >= 0) return stuck;
  for (const FlightGroup& group : record.groups) {
    if (group.context != operation.context) continue;
    for (const int member : group.members) {
      const auto other = by_rank.find(member);
      if (member == record.rank || other == by_rank.end()) continue;
      const std::optional<uint32_t> begun = Begun(*other->second, operation.context);
      if (begun.has_value() && *begun <= operation.sequence) stuck.not_called.push_back(member);
    }
  }
  return stuck;
}

std::vector<Diagnosis::Disagreement> Disagreements(const ByRank& by_rank) {
  // By group, epoch and number, what it was called as, by whom.
  std::map<std::tuple<uint32_t, uint32_t, uint32_t>, std::map<std::string, Diagnosis::Call>> calls;
  for (const auto& [rank, record] : by_rank) {
    for (const FlightOperation& operation : record->operations) {
      if (operation.peer >= 0) continue;
      Diagnosis::Call& call =
          calls[{operation.context, operation.epoch, operation.sequence}][Signed(operation)];
      call.what = What(operation);
      call.ranks.push_back(rank);
    }
  }
  std::vector<Diagnosis::Disagreement> found;
  for (auto& [key, by_signature] : calls) {
    if (by_signature.size() < 2) continue;
    Diagnosis::Disagreement disagreement;
    std::tie(disagreement.context, disagreement.epoch, disagreement.sequence) = key;
    for (auto& [signature, call] : by_signature) disagreement.calls.push_back(std::move(call));
    std::stable_sort(disagreement.calls.begin(), disagreement.calls.end(),
                     [](const auto& a, const auto& b) { return a.ranks.size() > b.ranks.size(); });
    found.push_back(std::move(disagreement));
  }
  return found;
}

}  // namespace

Diagnosis Diagnose(absl::Span<const FlightRecord> records) {
  ByRank by_rank;
  for (const FlightRecord& record : records) {
    const FlightRecord*& slot = by_rank[record.rank];
    if (slot == nullptr || slot->unix_time <= record.unix_time) slot = &record;
  }
  Diagnosis diagnosis;
  std::set<int> missing;
  std::map<int, std::vector<int>> waits;
  for (const auto& [rank, record] : by_rank) {
    diagnosis.recorded.push_back(rank);
    if (!record->groups.empty()) {  // those of the past may have had members that were taken out since
      for (const int member : record->groups.back().members) {
        if (!by_rank.contains(member)) missing.insert(member);
      }
    }
    const FlightOperation* operation = FirstStuck(*record);
    if (operation == nullptr) continue;
    diagnosis.stuck.push_back(Examine(*record, *operation, by_rank));
    const Diagnosis::Stuck& stuck = diagnosis.stuck.back();
    std::vector<int>& whom = waits[rank] = stuck.awaits;
    whom.insert(whom.end(), stuck.not_called.begin(), stuck.not_called.end());
    for (const int awaited : whom) {
      if (!by_rank.contains(awaited)) missing.insert(awaited);
    }
  }
  diagnosis.missing.assign(missing.begin(), missing.end());
  diagnosis.disagreements = Disagreements(by_rank);
  std::vector<int> suspects;
  for (const auto& [rank, whom] : waits) suspects.push_back(rank);
  diagnosis.late = FollowWaits(suspects, /*self=*/-1, [&](int rank) -> std::optional<std::vector<int>> {
    const auto at = waits.find(rank);
    if (at == waits.end()) return std::nullopt;
    return at->second;
  });
  return diagnosis;
}

std::string Describe(const Diagnosis& diagnosis) {
  std::string text = absl::StrCat("records of ", Ranks(diagnosis.recorded));
  if (!diagnosis.missing.empty()) absl::StrAppend(&text, "; none of ", Ranks(diagnosis.missing));
  text += "\n";
  for (const Diagnosis::Disagreement& disagreement : diagnosis.disagreements) {
    absl::StrAppend(&text, "different calls: operation ", disagreement.sequence, " of group ",
                    disagreement.context, " (epoch ", disagreement.epoch, ")\n");
    for (const Diagnosis::Call& call : disagreement.calls) {
      absl::StrAppend(&text, "  ", Ranks(call.ranks), call.ranks.size() == 1 ? " calls " : " call ",
                      call.what, "\n");
    }
  }
  for (const int rank : diagnosis.late) {
    const bool silent = std::binary_search(diagnosis.missing.begin(), diagnosis.missing.end(), rank);
    absl::StrAppend(&text, "late: rank ", rank,
                    silent ? ", which left no record: it was stopped, killed, or waited for nobody\n"
                           : ", which waits for nobody\n");
  }
  for (const Diagnosis::Stuck& stuck : diagnosis.stuck) {
    const FlightOperation& operation = stuck.operation;
    absl::StrAppend(&text, "rank ", stuck.rank, operation.ended == 0 ? " is in " : " failed in ",
                    What(operation), ", operation ", operation.sequence, " of group ", operation.context,
                    " (epoch ", operation.epoch, ")");
    if (!operation.algorithm.empty()) absl::StrAppend(&text, ", ", operation.algorithm);
    if (operation.ended != 0) {
      absl::StrAppendFormat(&text, ", after %.3f s",
                            static_cast<double>(operation.ended - operation.began) * 1e-9);
    }
    text += "\n";
    if (!stuck.awaits.empty()) absl::StrAppend(&text, "  waits for ", Ranks(stuck.awaits), "\n");
    if (!stuck.not_called.empty()) absl::StrAppend(&text, "  not called by ", Ranks(stuck.not_called), "\n");
    if (!operation.status.empty())
      absl::StrAppend(&text, "  ", operation.status, ": ", operation.message, "\n");
  }
  if (diagnosis.stuck.empty()) text += "no operation is in flight, and none has failed\n";
  return text;
}

}  // namespace cohort::comm
