#include "comm/topology_file.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <numeric>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "comm/check.h"

namespace cohort::comm {
namespace {

using Words = std::vector<absl::string_view>;
using Place = HostMap::Place;

constexpr char kHeader[] = "cohort-topology 1";
// By Distance.
constexpr const char* kLevels[kNumDistances] = {"inside_numa", "inside_socket", "inside_host",
                                                "between_hosts", "between_racks"};
constexpr std::pair<const char*, int Prices::*> kNumbers[] = {{"hosts_per_rack", &Prices::hosts_per_rack},
                                                              {"rails", &Prices::rails}};
constexpr char kMemory[] = "memory_gbit_per_s";
constexpr int kMostOfANumber = 1 << 20;
constexpr size_t kMostRanks = 4 << 20;
constexpr double kGapMicros = 0.1;

bool Positive(absl::string_view text, double* value) {
  return absl::SimpleAtod(text, value) && std::isfinite(*value) && *value > 0;
}

// Insertions, deletions and replacements from one word to the other (Levenshtein).
size_t Edits(absl::string_view a, absl::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 0; i < a.size(); ++i) {
    size_t diagonal = row[0]++;
    for (size_t j = 0; j < b.size(); ++j) {
      const size_t replaced = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({replaced, row[j] + 1, row[j + 1] + 1});
    }
  }
  return row.back();
}

absl::Status UnknownKey(absl::string_view key) {
  std::vector<absl::string_view> known = {"hosts", "rank", kMemory};
  known.insert(known.end(), std::begin(kLevels), std::end(kLevels));
  for (const auto& [name, field] : kNumbers) known.push_back(name);
  const auto nearest = std::min_element(known.begin(), known.end(), [&](const auto& a, const auto& b) {
    return Edits(key, a) < Edits(key, b);
  });
  return absl::InvalidArgumentError(absl::StrCat("unknown key '", key, "'; the nearest known one is '",
                                                 *nearest, "', of ", absl::StrJoin(known, ", ")));
}

class Reader {
 public:
  absl::Status ReadLine(const Words& words) {
    const absl::string_view key = words[0];
    if (key == "hosts") return ReadHosts(words);
    if (key == "rank") return ReadRank(words);
    for (int level = 0; level < kNumDistances; ++level) {
      if (key == kLevels[level]) return ReadLevel(words, level);
    }
    for (const auto& [name, field] : kNumbers) {
      if (key != name) continue;
      if (words.size() == 2 && absl::SimpleAtoi(words[1], &(prices_.*field)) && prices_.*field >= 0 &&
          prices_.*field <= kMostOfANumber) {
        return absl::OkStatus();
      }
      return absl::InvalidArgumentError(absl::StrCat(key, " is a whole number from 0 to ", kMostOfANumber));
    }
    if (key != kMemory) return UnknownKey(key);
    double rate = 0;
    if (words.size() != 2 || !Positive(words[1], &rate)) {
      return absl::InvalidArgumentError(absl::StrCat(key, " is a number above 0"));
    }
    prices_.local_seconds_per_byte = 8e-9 / rate;
    return absl::OkStatus();
  }

  DescribedTopology Finish() && {
    // Inside hosts first from the wider level, then from the narrower one; between them from the nearer.
    const auto copy = [&](int to, int from) {
      if (said_[to] || !said_[from]) return;
      prices_.price[to] = prices_.price[from];
      prices_.gap[to] = prices_.gap[from];
      said_[to] = true;
    };
    copy(1, 2), copy(0, 1), copy(1, 0), copy(2, 1);
    copy(4, 3), copy(3, 4);
    DescribedTopology described;
    if (!places_.empty()) described.hosts = std::make_shared<const HostMap>(places_);
    described.prices = prices_;
    return described;
  }

 private:
  // Pairs of a name and a number; those in `known` and no others, each once. 0 is left where one is not there.
  static absl::Status ReadPairs(const Words& words, std::vector<std::pair<absl::string_view, int*>> known,
                                int least) {
    bool good = words.size() % 2 == 0;
    for (size_t i = 0; i < words.size() && good; i += 2) {
      const auto at =
          std::find_if(known.begin(), known.end(), [&](const auto& k) { return k.first == words[i]; });
      good = at != known.end() && absl::SimpleAtoi(words[i + 1], at->second) && *at->second >= least &&
             *at->second <= kMostOfANumber;
      if (good) known.erase(at);
    }
    if (good) return absl::OkStatus();
    return absl::InvalidArgumentError("");  // the caller says what it should be
  }

  absl::Status ReadHosts(const Words& words) {
    int count = 0, ranks = 0, sockets = 1, numa = 0;
    if (!ReadPairs(words, {{"hosts", &count}, {"ranks", &ranks}, {"sockets", &sockets}, {"numa", &numa}}, 1)
             .ok() ||
        ranks == 0) {
      return absl::InvalidArgumentError(absl::StrCat(
          "a group of hosts is `hosts COUNT ranks COUNT [sockets COUNT] [numa COUNT]`, numbers from 1 to ",
          kMostOfANumber));
    }
    if (numa == 0) numa = sockets;
    if (numa % sockets != 0) {
      return absl::InvalidArgumentError(
          absl::StrCat(numa, " NUMA domains cannot be equal parts of ", sockets, " sockets"));
    }
    if (by_rank_) return MixedError();
    if (places_.size() + static_cast<size_t>(count) * ranks > kMostRanks) {
      return absl::InvalidArgumentError(absl::StrCat("more than ", kMostRanks, " ranks in all"));
    }
    for (int host = 0; host < count; ++host, ++num_hosts_) {
      for (int64_t rank = 0; rank < ranks; ++rank) {
        places_.push_back({num_hosts_, sockets == 1 ? -1 : static_cast<int>(rank * sockets / ranks),
                           numa == 1 || numa == sockets ? -1 : static_cast<int>(rank * numa / ranks)});
      }
    }
    return absl::OkStatus();
  }

  absl::Status ReadRank(const Words& words) {
    int rank = -1;
    Place place{-1, -1, -1};
    if (!ReadPairs(words,
                   {{"rank", &rank}, {"host", &place.host}, {"socket", &place.socket}, {"numa", &place.numa}},
                   0)
             .ok() ||
        place.host < 0) {
      return absl::InvalidArgumentError("a rank is `rank R host H [socket S] [numa N]`, numbers from 0 on");
    }
    if (!places_.empty() && !by_rank_) return MixedError();
    by_rank_ = true;
    if (rank != static_cast<int>(places_.size())) {
      return absl::InvalidArgumentError(
          absl::StrCat("rank ", rank, " where rank ", places_.size(), " should follow"));
    }
    places_.push_back(place);
    return absl::OkStatus();
  }

  static absl::Status MixedError() {
    return absl::InvalidArgumentError("either all ranks are in lines `hosts`, or each has its line `rank`");
  }

  absl::Status ReadLevel(const Words& words, int level) {
    double latency = 0, rate = 0, gap = kGapMicros;
    if (words.size() < 3 || words.size() > 4 || !Positive(words[1], &latency) || !Positive(words[2], &rate) ||
        (words.size() == 4 && (!absl::SimpleAtod(words[3], &gap) || !std::isfinite(gap) || gap < 0))) {
      return absl::InvalidArgumentError(
          absl::StrCat(words[0], " is LATENCY_US GBIT_PER_S [GAP_US], numbers above 0"));
    }
    if (said_[level]) return absl::InvalidArgumentError(absl::StrCat(words[0], " is said twice"));
    prices_.price[level] = {latency * 1e-6, 8e-9 / rate};
    prices_.gap[level] = gap * 1e-6;
    said_[level] = true;
    return absl::OkStatus();
  }

  Prices prices_ = DefaultPrices();
  std::vector<Place> places_;
  int num_hosts_ = 0;
  bool by_rank_ = false;
  bool said_[kNumDistances] = {};
};

}  // namespace

absl::StatusOr<DescribedTopology> ParseTopology(absl::string_view text, absl::string_view source) {
  Reader reader;
  bool header = false;
  int number = 0;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    ++number;
    line = line.substr(0, line.find('#'));
    const Words words = absl::StrSplit(line, absl::ByAnyChar(" \t\r"), absl::SkipEmpty());
    if (words.empty()) continue;
    absl::Status read;
    if (header) {
      read = reader.ReadLine(words);
    } else if (absl::StrJoin(words, " ") == kHeader) {
      header = true;
    } else {
      read = absl::InvalidArgumentError(absl::StrCat("the first line must be '", kHeader, "'"));
    }
    if (!read.ok())
      return absl::InvalidArgumentError(absl::StrCat(source, ":", number, ": ", read.message()));
  }
  if (!header) {
    return absl::InvalidArgumentError(
        absl::StrCat(source, ": empty: the first line must be '", kHeader, "'"));
  }
  return std::move(reader).Finish();
}

std::string FormatTopology(const HostMap* hosts, const Prices& prices) {
  std::string text = absl::StrCat(kHeader, "\n");
  for (int rank = 0; hosts != nullptr && rank < hosts->size(); ++rank) {
    absl::StrAppend(&text, "rank ", rank, " host ", hosts->host_of(rank));
    if (hosts->socket_of(rank) >= 0) absl::StrAppend(&text, " socket ", hosts->socket_of(rank));
    if (hosts->numa_of(rank) >= 0) absl::StrAppend(&text, " numa ", hosts->numa_of(rank));
    text += "\n";
  }
  for (int level = 0; level < kNumDistances; ++level) {
    absl::StrAppendFormat(&text, "%s %.17g %.17g %.17g\n", kLevels[level], prices.price[level].latency * 1e6,
                          8e-9 / prices.price[level].seconds_per_byte, prices.gap[level] * 1e6);
  }
  for (const auto& [name, field] : kNumbers) absl::StrAppend(&text, name, " ", prices.*field, "\n");
  absl::StrAppendFormat(&text, "%s %.17g\n", kMemory, 8e-9 / prices.local_seconds_per_byte);
  return text;
}

}  // namespace cohort::comm
