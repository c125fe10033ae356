#include "comm/tuner/prices.h"

#include <cmath>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "comm/policy.h"

namespace cohort::comm {
namespace {

constexpr char kHeader[] = "cohort-prices 1";
constexpr const char* kLevels[kNumDistances] = {"inside_socket", "inside_host", "between_hosts",
                                                "between_racks"};
constexpr std::pair<const char*, int Prices::*> kNumbers[] = {{"ranks_per_socket", &Prices::ranks_per_socket},
                                                              {"hosts_per_rack", &Prices::hosts_per_rack},
                                                              {"rails", &Prices::rails}};
constexpr char kMemory[] = "memory_gbit_per_s";
constexpr int kMostOfANumber = 1 << 20;

bool Positive(absl::string_view text, double* value) {
  return absl::SimpleAtod(text, value) && std::isfinite(*value) && *value > 0;
}

// One line; what is wrong with it, or nothing. `said`: levels that the file has.
std::string ReadLine(const std::vector<absl::string_view>& words, Prices* prices, bool* said) {
  const absl::string_view key = words[0];
  for (int level = 0; level < kNumDistances; ++level) {
    if (key != kLevels[level]) continue;
    double latency = 0, rate = 0, gap = 0;
    if (words.size() < 3 || words.size() > 4 || !Positive(words[1], &latency) || !Positive(words[2], &rate) ||
        (words.size() == 4 && (!absl::SimpleAtod(words[3], &gap) || !std::isfinite(gap) || gap < 0))) {
      return absl::StrCat(key, " is LATENCY_US GBIT_PER_S [GAP_US], numbers above 0");
    }
    prices->price[level] = {latency * 1e-6, 8e-9 / rate};
    prices->gap[level] = gap * 1e-6;
    said[level] = true;
    return "";
  }
  for (const auto& [name, field] : kNumbers) {
    if (key != name) continue;
    int value = 0;
    if (words.size() != 2 || !absl::SimpleAtoi(words[1], &value) || value < 0 || value > kMostOfANumber) {
      return absl::StrCat(key, " is a whole number from 0 to ", kMostOfANumber);
    }
    prices->*field = value;
    return "";
  }
  if (key == kMemory) {
    double rate = 0;
    if (words.size() != 2 || !Positive(words[1], &rate)) return absl::StrCat(key, " is a number above 0");
    prices->local_seconds_per_byte = 8e-9 / rate;
    return "";
  }
  return absl::StrCat("unknown key '", key,
                      "'; known keys: inside_socket, inside_host, between_hosts, between_racks, "
                      "ranks_per_socket, hosts_per_rack, rails, memory_gbit_per_s");
}

}  // namespace

Machine Prices::On(std::shared_ptr<const HostMap> hosts) const {
  Machine machine;
  machine.hosts = std::move(hosts);
  for (int level = 0; level < kNumDistances; ++level) {
    machine.price[level] = price[level];
    machine.gap[level] = gap[level];
  }
  machine.ranks_per_socket = ranks_per_socket;
  machine.hosts_per_rack = hosts_per_rack;
  machine.rails = rails;
  machine.local_seconds_per_byte = local_seconds_per_byte;
  return machine;
}

Prices PricesOf(const Machine& machine) {
  Prices prices;
  for (int level = 0; level < kNumDistances; ++level) {
    prices.price[level] = machine.price[level];
    prices.gap[level] = machine.gap[level];
  }
  prices.ranks_per_socket = machine.ranks_per_socket;
  prices.hosts_per_rack = machine.hosts_per_rack;
  prices.rails = machine.rails;
  prices.local_seconds_per_byte = machine.local_seconds_per_byte;
  return prices;
}

Prices DefaultPrices() {
  Prices prices;
  for (const int level : {0, 1}) {
    prices.price[level] = {policy::kLocalLatency, policy::kLocalSecondsPerByte};
    prices.gap[level] = policy::kLocalGap;
  }
  for (const int level : {2, 3}) {
    prices.price[level] = {policy::kRemoteLatency, policy::kRemoteSecondsPerByte};
    prices.gap[level] = policy::kRemoteGap;
  }
  prices.local_seconds_per_byte = policy::kLocalSecondsPerByte;
  return prices;
}

std::string FormatPrices(const Prices& prices) {
  std::string text = absl::StrCat(kHeader, "\n");
  for (int level = 0; level < kNumDistances; ++level) {
    absl::StrAppendFormat(&text, "%s %.17g %.17g %.17g\n", kLevels[level], prices.price[level].latency * 1e6,
                          8e-9 / prices.price[level].seconds_per_byte, prices.gap[level] * 1e6);
  }
  for (const auto& [name, field] : kNumbers) absl::StrAppend(&text, name, " ", prices.*field, "\n");
  absl::StrAppendFormat(&text, "%s %.17g\n", kMemory, 8e-9 / prices.local_seconds_per_byte);
  return text;
}

absl::StatusOr<Prices> ParsePrices(absl::string_view text, absl::string_view source) {
  Prices prices = DefaultPrices();
  bool said[kNumDistances] = {};
  bool header = false;
  int number = 0;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    ++number;
    line = line.substr(0, line.find('#'));
    const std::vector<absl::string_view> words =
        absl::StrSplit(line, absl::ByAnyChar(" \t\r"), absl::SkipEmpty());
    if (words.empty()) continue;
    std::string wrong;
    if (!header) {
      header = words.size() == 2 && absl::StrCat(words[0], " ", words[1]) == kHeader;
      if (!header) wrong = absl::StrCat("the first line must be '", kHeader, "'");
    } else {
      wrong = ReadLine(words, &prices, said);
    }
    if (!wrong.empty()) return absl::InvalidArgumentError(absl::StrCat(source, ":", number, ": ", wrong));
  }
  if (!header) {
    return absl::InvalidArgumentError(
        absl::StrCat(source, ": empty: the first line must be '", kHeader, "'"));
  }
  const auto copy = [&](int to, int from) {
    if (said[to] || !said[from]) return;
    prices.price[to] = prices.price[from];
    prices.gap[to] = prices.gap[from];
  };
  copy(0, 1);
  copy(1, 0);
  copy(3, 2);
  return prices;
}

}  // namespace cohort::comm
