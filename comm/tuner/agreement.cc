#include "comm/tuner/agreement.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <map>
#include <sstream>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "comm/check.h"
#include "comm/communicator.h"
#include "comm/topology_file.h"

namespace cohort::comm {
namespace {

// What each digest is of, and where ranks have it from.
constexpr const char* kInputNames[TuningInputs::kNumInputs] = {
    "collectives (COHORT_COLLECTIVES, CommunicatorOptions::collectives)",
    "tuning table (COHORT_TUNING_TABLE, CommunicatorOptions::tuning_table)",
    "topology (COHORT_TOPOLOGY, CommunicatorOptions::topology)"};

uint64_t Fnv(absl::string_view text) {
  uint64_t hash = 0xcbf29ce484222325ull;
  for (const unsigned char c : text) hash = (hash ^ c) * 0x100000001b3ull;
  return hash;
}

// The variable, where it is set, or else the option.
std::string Told(const char* variable, const std::string& option) {
  const char* value = std::getenv(variable);
  return value != nullptr && *value != '\0' ? value : option;
}

absl::StatusOr<std::string> ReadFile(const char* variable, const std::string& path) {
  std::ifstream file(path);
  std::ostringstream text;
  if (file) text << file.rdbuf();
  if (!file) {
    return absl::InvalidArgumentError(absl::StrCat(variable, ": cannot read the file '", path, "'"));
  }
  return text.str();
}

std::string TuningKey(int rank) { return absl::StrCat("cohort/tuning/", rank); }
std::string LinkKey(int rank) { return absl::StrCat("cohort/links/", rank); }
constexpr char kPricesKey[] = "cohort/prices";
constexpr char kFailed[] = "failed ";

absl::Status ToldUnknown(int rank) {
  return absl::InvalidArgumentError(absl::StrCat("the rendezvous holds something unknown for rank ", rank));
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

}  // namespace

TuningInputs::Digests TuningInputs::digests() const {
  const uint64_t prices = source == Source::kFile ? Fnv(prices_text) : static_cast<uint64_t>(source);
  return {Fnv(FormatTuningTable(tuning.overrides)), Fnv(FormatTuningTable(tuning.table)), prices};
}

absl::StatusOr<TuningInputs> ReadTuningInputs(const CommunicatorOptions& options) {
  TuningInputs inputs;
  auto overrides = ParseOverrides(Told("COHORT_COLLECTIVES", options.collectives));
  if (!overrides.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("COHORT_COLLECTIVES: ", overrides.status().message()));
  }
  inputs.tuning.overrides = *std::move(overrides);
  if (const std::string path = Told("COHORT_TUNING_TABLE", options.tuning_table); !path.empty()) {
    COHORT_ASSIGN_OR_RETURN(const std::string text, ReadFile("COHORT_TUNING_TABLE", path));
    COHORT_ASSIGN_OR_RETURN(inputs.tuning.table, ParseTuningTable(text, path));
  }
  const std::string topology = Told("COHORT_TOPOLOGY", options.topology);
  if (topology == "default") {
    inputs.source = TuningInputs::Source::kDefault;
  } else if (topology == "measure") {
    inputs.source = TuningInputs::Source::kMeasured;
    inputs.tuning.own_prices = true;
  } else if (!topology.empty()) {
    COHORT_ASSIGN_OR_RETURN(inputs.prices_text, ReadFile("COHORT_TOPOLOGY", topology));
    COHORT_ASSIGN_OR_RETURN(const DescribedTopology described, ParseTopology(inputs.prices_text, topology));
    inputs.tuning.prices = described.prices;
    inputs.declared = described.hosts;
    inputs.source = TuningInputs::Source::kFile;
    inputs.tuning.own_prices = true;
  }
  return inputs;
}

absl::Status CompareDigests(absl::Span<const TuningInputs::Digests> digests) {
  for (int input = 0; input < TuningInputs::kNumInputs; ++input) {
    std::map<uint64_t, std::vector<size_t>> camps;
    for (size_t rank = 0; rank < digests.size(); ++rank) camps[digests[rank][input]].push_back(rank);
    if (camps.size() == 1) continue;
    // Of equals, the camp of the lowest rank is the one to which others are compared.
    const auto most = std::max_element(camps.begin(), camps.end(), [](const auto& a, const auto& b) {
      return std::pair(a.second.size(), b.second[0]) < std::pair(b.second.size(), a.second[0]);
    });
    std::vector<size_t> others;
    for (const auto& [digest, ranks] : camps) {
      if (digest != most->first) others.insert(others.end(), ranks.begin(), ranks.end());
    }
    std::sort(others.begin(), others.end());
    return absl::FailedPreconditionError(
        absl::StrCat(others.size() == 1 ? "rank " : "ranks ", absl::StrJoin(others, ", "),
                     others.size() == 1 ? " has" : " have", " other ", kInputNames[input], " than rank ",
                     most->second[0], ": ranks would choose different algorithms. Give all ranks the same"));
  }
  return absl::OkStatus();
}

absl::Status CompareAtRendezvous(Rendezvous& rendezvous, const absl::StatusOr<TuningInputs>& own,
                                 absl::Time deadline) {
  const int size = rendezvous.size();
  if (size == 1) return own.status();
  std::string text = absl::StrCat(kFailed, own.status().message());
  if (own.ok()) {
    const TuningInputs::Digests digests = own->digests();
    text = absl::StrJoin(digests, " ");
  }
  COHORT_RETURN_IF_ERROR(rendezvous.Put(TuningKey(rendezvous.rank()), text));
  COHORT_RETURN_IF_ERROR(own.status());
  std::vector<TuningInputs::Digests> all(size);
  for (int rank = 0; rank < size; ++rank) {
    if (rank == rendezvous.rank()) {
      all[rank] = own->digests();
      continue;
    }
    COHORT_ASSIGN_OR_RETURN(const std::string said, rendezvous.Get(TuningKey(rank), deadline));
    if (absl::StartsWith(said, kFailed)) {
      return absl::FailedPreconditionError(
          absl::StrCat("rank ", rank, " cannot start: ", said.substr(sizeof(kFailed) - 1)));
    }
    const std::vector<absl::string_view> words = absl::StrSplit(said, ' ');
    if (words.size() != all[rank].size()) return ToldUnknown(rank);
    for (size_t i = 0; i < words.size(); ++i) {
      if (!absl::SimpleAtoi(words[i], &all[rank][i])) return ToldUnknown(rank);
    }
  }
  return CompareDigests(all);
}

absl::StatusOr<std::string> SpreadPrices(Rendezvous& rendezvous, const Prices& before,
                                         absl::Span<const int> measurers,
                                         const std::vector<MeasuredLink>& own, absl::Time deadline) {
  const bool measures = std::find(measurers.begin(), measurers.end(), rendezvous.rank()) != measurers.end();
  if (measures) {
    std::string text;
    for (const MeasuredLink& link : own) {
      absl::StrAppendFormat(&text, "%d %.17g %.17g %.17g\n", static_cast<int>(link.distance), link.latency,
                            link.seconds_per_byte, link.gap);
    }
    COHORT_RETURN_IF_ERROR(rendezvous.Put(LinkKey(rendezvous.rank()), text));
  }
  if (rendezvous.rank() != 0) return rendezvous.Get(kPricesKey, deadline);
  std::vector<double> latencies[kNumDistances], rates[kNumDistances], gaps[kNumDistances];
  for (const int rank : measurers) {
    std::string text;
    COHORT_ASSIGN_OR_RETURN(text, rendezvous.Get(LinkKey(rank), deadline));
    for (const absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
      const std::vector<absl::string_view> words = absl::StrSplit(line, ' ');
      double values[4];
      if (words.size() != 4) return ToldUnknown(rank);
      for (int i = 0; i < 4; ++i) {
        if (!absl::SimpleAtod(words[i], &values[i]) || !(values[i] >= 0) || !std::isfinite(values[i])) {
          return ToldUnknown(rank);
        }
      }
      if (values[0] >= kNumDistances) return ToldUnknown(rank);
      const int level = static_cast<int>(values[0]);
      latencies[level].push_back(values[1]);
      rates[level].push_back(values[2]);
      gaps[level].push_back(values[3]);
    }
  }
  Prices prices = before;
  bool known[kNumDistances] = {};
  const auto set = [&](int level, const LinkPrice& price, double gap) {
    prices.price[level] = price;
    prices.gap[level] = gap;
    known[level] = true;
  };
  for (int level = 0; level < kNumDistances; ++level) {
    if (latencies[level].empty()) continue;
    set(level, {Median(latencies[level]), Median(rates[level])}, Median(gaps[level]));
  }
  // Levels on which no two ranks are: as the nearest one that was measured, of those inside hosts, or between them.
  constexpr int kBetween = static_cast<int>(Distance::kRack);
  for (const auto& [begin, end] : {std::pair(0, kBetween), std::pair(kBetween, kNumDistances)}) {
    for (int level = begin + 1; level < end; ++level) {
      if (!known[level] && known[level - 1]) set(level, prices.price[level - 1], prices.gap[level - 1]);
    }
    for (int level = end - 1; level > begin; --level) {
      if (known[level] && !known[level - 1]) set(level - 1, prices.price[level], prices.gap[level]);
    }
  }
  const std::string text = FormatTopology(nullptr, prices);
  COHORT_RETURN_IF_ERROR(rendezvous.Put(kPricesKey, text));
  return text;
}

std::string EncodeForNewcomer(const TuningInputs& inputs) {
  return absl::StrCat(absl::StrJoin(inputs.digests(), " "), "\n", inputs.prices_text);
}

absl::StatusOr<TuningInputs> AdoptAsNewcomer(TuningInputs own, absl::string_view members) {
  const size_t end = members.find('\n');
  TuningInputs::Digests theirs;
  const std::vector<absl::string_view> words = absl::StrSplit(members.substr(0, end), ' ');
  bool read = end != absl::string_view::npos && words.size() == theirs.size();
  for (size_t i = 0; read && i < words.size(); ++i) read = absl::SimpleAtoi(words[i], &theirs[i]);
  if (!read) return absl::InvalidArgumentError("the group's tuning cannot be read");
  const TuningInputs::Digests digests = own.digests();
  for (size_t i = 0; i < theirs.size(); ++i) {
    if (theirs[i] == digests[i]) continue;
    return absl::FailedPreconditionError(absl::StrCat("this process has other ", kInputNames[i],
                                                      " than the group that took it in: give it the same"));
  }
  own.prices_text = std::string(members.substr(end + 1));
  if (!own.prices_text.empty()) {
    COHORT_ASSIGN_OR_RETURN(const DescribedTopology theirs_described,
                            ParseTopology(own.prices_text, "the group's prices"));
    own.tuning.prices = theirs_described.prices;
  }
  return own;
}

}  // namespace cohort::comm
