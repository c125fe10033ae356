#include "comm/tuner/tuner.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>
#include <tuple>

#include "comm/algorithms/policy.h"
#include "comm/check.h"
#include "comm/tuner/policy.h"

namespace cohort::comm {
namespace {

// Measured with `cohort bench collectives` on shared memory. Reading is cheap there, and as few steps as possible win.
constexpr char kBuiltIn[] = R"(cohort-tuning-table 1
all-reduce      1 *      0-33k   recursive_doubling
all-reduce      1 2-17   33k-inf direct
all-reduce      1 *      33k-inf ring
reduce-scatter  1 1-17   *       pairwise
reduce-scatter  1 *      *       ring
all-gather      1 1-17   *       pairwise
all-gather      1 *      0-65k   bruck
all-gather      1 *      65k-inf ring
broadcast       1 1-3    *       binomial
broadcast       1 *      0-65k   binomial
broadcast       1 3-17   65k-inf hierarchical
broadcast       1 *      65k-inf chain
reduce          1 *      0-33k   binomial
reduce          1 *      33k-inf halving_gather
gather          1 *      *       direct
scatter         1 *      *       direct
all-to-all      1 *      *       pairwise
all-to-all-v    1 *      *       pairwise
barrier         1 *      *       dissemination
)";

constexpr size_t kPricedElement = 4;  // bytes; prices hardly depend on it

size_t PieceOf(const TuningRule& rule) {
  if (!rule.algorithm->pipelined) return 0;
  return rule.piece_bytes != 0 ? rule.piece_bytes : policy::kPieceBytes;
}

const PricedChoice& Cheapest(const std::vector<PricedChoice>& all) {
  return *std::min_element(all.begin(), all.end(), [](const PricedChoice& a, const PricedChoice& b) {
    return a.seconds < b.seconds;
  });
}

}  // namespace

double Alike(double seconds, double without_bytes) {
  if (without_bytes <= 0) return 0;
  return policy::kAlike * without_bytes * std::min(1.0, without_bytes / seconds);
}

Choice Preferred(const std::vector<PricedChoice>& all, double alike) {
  const double least = Cheapest(all).seconds;
  const auto order = [&](const PricedChoice& one) {
    const double more = one.seconds - least;
    return std::tuple(more > alike, one.remote_messages, one.messages,
                      alike > 0 ? std::floor(4 * more / alike) : more);
  };
  return std::min_element(all.begin(), all.end(),
                          [&](const PricedChoice& a, const PricedChoice& b) { return order(a) < order(b); })
      ->choice;
}

const TuningRules& BuiltInRules() {
  static const TuningRules* rules = [] {
    absl::StatusOr<TuningRules> parsed = ParseTuningTable(kBuiltIn, "the built-in table");
    COHORT_CHECK(parsed.ok(), "%s", parsed.status().ToString().c_str());
    return new TuningRules(*std::move(parsed));
  }();
  return *rules;
}

Tuner::Tuner(std::shared_ptr<const Tuning> tuning, std::shared_ptr<const HostMap> hosts)
    : tuning_(std::move(tuning)), hosts_(std::move(hosts)) {
  prices_count_ = hosts_->size() > 1 && (hosts_->num_hosts() > 1 || tuning_->own_prices);
  rules_ = Fitting(tuning_->overrides);
  const auto add = [&](const TuningRules& rules) {
    const Rules fitting = Fitting(rules);
    rules_.insert(rules_.end(), fitting.begin(), fitting.end());
  };
  add(tuning_->table);
  if (!prices_count_) add(BuiltInRules());
}

Tuner::Rules Tuner::Fitting(const TuningRules& rules) const {
  Rules fitting;
  for (const TuningRule& rule : rules) {
    if (rule.hosts.Has(hosts_->num_hosts()) && rule.ranks.Has(hosts_->size())) fitting.push_back(rule);
  }
  return fitting;
}

uint32_t Tuner::SizeClass(size_t bytes) {
  if (bytes < 4) return static_cast<uint32_t>(bytes);
  const int octave = std::bit_width(bytes) - 1;
  return static_cast<uint32_t>(4 * (octave - 1) + ((bytes >> (octave - 2)) & 3));
}

size_t Tuner::SmallestOf(uint32_t size_class) {
  if (size_class < 4) return size_class;
  const uint32_t octave = size_class / 4 + 1;
  return static_cast<size_t>(4 + size_class % 4) << (octave - 2);
}

absl::StatusOr<Price> Tuner::PriceOne(const Choice& choice, const Machine& machine, size_t bytes) const {
  const size_t count = (SmallestOf(SizeClass(bytes)) + kPricedElement - 1) / kPricedElement;
  return PriceOf(*choice.algorithm, machine, count, kPricedElement, policy::kTunerReplayed,
                 choice.piece_bytes == 0 ? policy::kPieceBytes : choice.piece_bytes);
}

std::vector<PricedChoice> Tuner::PriceAll(Operation operation, size_t bytes) const {
  const Machine machine = tuning_->prices.On(hosts_);
  std::vector<PricedChoice> all;
  for (const Algorithm& algorithm : Algorithms()) {
    if (algorithm.operation != operation) continue;
    const auto price = [&](size_t piece) {
      const Choice choice = {&algorithm, piece};
      const auto priced = PriceOne(choice, machine, bytes);
      if (priced.ok()) all.push_back({choice, priced->seconds, priced->remote_messages, priced->messages});
    };
    if (!algorithm.pipelined) {
      price(0);
    } else {
      // The usual size first: of equals it counts.
      price(policy::kPieceBytes);
      for (const size_t piece : policy::kOtherPieceBytes) {
        if (SmallestOf(SizeClass(bytes)) > piece) price(piece);
      }
    }
  }
  return all;
}

Choice Tuner::Choose(Operation operation, std::optional<size_t> bytes) {
  for (const TuningRule& rule : rules_) {
    if (rule.operation != operation) continue;
    if (bytes.has_value() ? rule.bytes.Has(*bytes) : rule.bytes.everything()) {
      return {rule.algorithm, PieceOf(rule)};
    }
  }
  // Without the matrix there is no other way.
  if (!bytes.has_value()) return {FindAlgorithm(operation, "pairwise"), 0};
  const auto key = std::pair(operation, SizeClass(*bytes));
  if (const auto known = preferred_.find(key); known != preferred_.end()) return known->second;
  const std::vector<PricedChoice> all = PriceAll(operation, *bytes);
  COHORT_CHECK(!all.empty(), "no algorithm for %s", Name(operation));
  Machine without_bytes = tuning_->prices.On(hosts_);
  without_bytes.local_seconds_per_byte = 0;
  for (LinkPrice& price : without_bytes.price) price.seconds_per_byte = 0;
  const PricedChoice& cheapest = Cheapest(all);
  const auto fixed = PriceOne(cheapest.choice, without_bytes, *bytes);
  return preferred_[key] = Preferred(all, Alike(cheapest.seconds, fixed.ok() ? fixed->seconds : 0));
}

bool Tuner::ExchangesCounts() {
  for (const TuningRule& rule : rules_) {
    if (rule.operation != Operation::kAllToAllV) continue;
    if (rule.algorithm->by_host) return hosts_->num_hosts() > 1;
    if (rule.bytes.everything()) return false;
  }
  if (exchanges_counts_.has_value()) return *exchanges_counts_;
  const size_t size = static_cast<size_t>(hosts_->size());
  const size_t counts_bytes = size * size * sizeof(uint64_t);
  exchanges_counts_ = false;
  if (!prices_count_ || hosts_->num_hosts() == 1 || hosts_->most_on_a_host() == 1 ||
      counts_bytes > policy::kMostCountsBytes) {
    return false;
  }
  const auto price = [&](const Algorithm& algorithm, size_t bytes) {
    const auto priced = PriceOf(algorithm, tuning_->prices.On(hosts_), bytes / kPricedElement, kPricedElement,
                                policy::kTunerReplayed);
    return priced.ok() ? priced->seconds : HUGE_VAL;
  };
  const size_t bytes = size * policy::kSmallMessageBytes;
  const double exchange = price(*Choose(Operation::kAllGather, counts_bytes).algorithm, counts_bytes);
  const double hierarchical = price(*FindAlgorithm(Operation::kAllToAllV, "hierarchical"), bytes);
  exchanges_counts_ = policy::kCountsFirstGain * (exchange + hierarchical) <
                      price(*FindAlgorithm(Operation::kAllToAllV, "pairwise"), bytes);
  return *exchanges_counts_;
}

const Algorithm& Tuner::Select(Collective& collective, size_t element_bytes) {
  std::optional<size_t> bytes = TotalCount(collective) * element_bytes;
  if (collective.operation == Operation::kAllToAllV) {
    bytes = std::nullopt;
    if (collective.matrix != nullptr) {  // of an average rank
      const auto& matrix = *collective.matrix;
      bytes = std::accumulate(matrix.begin(), matrix.end(), size_t{0}) / hosts_->size() * element_bytes;
    }
  }
  const Choice choice = Choose(collective.operation, bytes);
  COHORT_CHECK(choice.algorithm != nullptr, "no algorithm for %s", Name(collective.operation));
  if (choice.piece_bytes != 0) collective.piece = std::max<size_t>(1, choice.piece_bytes / element_bytes);
  return *choice.algorithm;
}

}  // namespace cohort::comm
