// The tuner: which algorithm an operation uses. The one place where that is chosen.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "comm/algorithms/algorithm.h"
#include "comm/host_map.h"
#include "comm/operation.h"
#include "comm/pricing.h"
#include "comm/tuner/prices.h"
#include "comm/tuner/rules.h"

namespace cohort::comm {

// All that choices depend on besides the call and the group's hosts. Equal on all ranks (agreement.h).
struct Tuning {
  TuningRules overrides;
  TuningRules table;
  Prices prices = DefaultPrices();
  // Whether the prices of a host are somebody's own, so that they count for more than the built-in rules.
  bool own_prices = false;
};

struct Choice {
  const Algorithm* algorithm = nullptr;
  size_t piece_bytes = 0;  // 0: the algorithm does not cut

  friend bool operator==(const Choice&, const Choice&) = default;
};

struct PricedChoice {
  Choice choice;
  double seconds = 0;
  double remote_messages = 0;  // between hosts
  double messages = 0;         // of all ranks
};

// How many seconds more than the cheapest are about the same, where that takes `seconds`, and its messages `without_bytes`
// of them: policy::kAlike of the latter, times their share of it all, as the smaller that is, the more of what messages
// cost hides behind bytes.
double Alike(double seconds, double without_bytes);

// Of those within `alike` seconds of the cheapest the one with the fewest messages between hosts, then with the fewest,
// then the cheapest, a fourth of `alike` more or less, then the first: what a message costs the processors, which ranks
// may share, is in no price. `all` is not empty.
Choice Preferred(const std::vector<PricedChoice>& all, double alike);

// Chooses for one group: the override that fits, or else the rule of the table, or else on one host the built-in rule
// (measured, as prices of memory say little), or else what is preferred of what the prices say. A pure function of the
// constructor's and the call's arguments; prices are computed once for every size class, four an octave. Not thread-safe.
class Tuner {
 public:
  Tuner(std::shared_ptr<const Tuning> tuning, std::shared_ptr<const HostMap> hosts);

  // `bytes` is TotalCount in bytes. None for an all-to-all-v without a matrix: ranks know only their own counts.
  // Then only rules for all sizes count.
  Choice Choose(Operation operation, std::optional<size_t> bytes);
  // The same for a call, whose piece is filled in.
  const Algorithm& Select(Collective& collective, size_t element_bytes);

  // Whether ranks should tell each other their counts before an all-to-all-v without a matrix: then it can be
  // hierarchical, and its size is known. So where a rule asks for that, or, without rules, where by the prices the
  // exchange and the hierarchical one together beat pairwise messages, as they do where these are many and small.
  bool ExchangesCounts();

  // What the prices say of the size class of `bytes`, in the order of the table of algorithms.
  std::vector<PricedChoice> PriceAll(Operation operation, size_t bytes) const;

  // Sizes of a class are priced as its smallest.
  static uint32_t SizeClass(size_t bytes);
  static size_t SmallestOf(uint32_t size_class);

 private:
  // Of the rules that can fit this group.
  using Rules = std::vector<TuningRule>;
  Rules Fitting(const TuningRules& rules) const;
  absl::StatusOr<Price> PriceOne(const Choice& choice, const Machine& machine, size_t bytes) const;

  const std::shared_ptr<const Tuning> tuning_;
  const std::shared_ptr<const HostMap> hosts_;
  Rules rules_;  // the first that fits counts
  bool prices_count_ = false;
  std::map<std::pair<Operation, uint32_t>, Choice> preferred_;
  std::optional<bool> exchanges_counts_;
};

// The rules for groups on one host.
const TuningRules& BuiltInRules();

}  // namespace cohort::comm
