// What messages cost on this machine, level by level: what the tuner chooses by.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "comm/host_map.h"
#include "comm/pricing.h"

namespace cohort::comm {

// A Machine without its hosts, which each group has its own of.
struct Prices {
  LinkPrice price[kNumDistances];  // by Distance
  double gap[kNumDistances] = {0, 0, 0, 0};
  int ranks_per_socket = 0;
  int hosts_per_rack = 0;
  int rails = 1;
  double local_seconds_per_byte = 0;

  Machine On(std::shared_ptr<const HostMap> hosts) const;
};

Prices PricesOf(const Machine& machine);

// Of ranks that share memory, and hosts some ten gigabits apart: where nothing was measured or declared.
Prices DefaultPrices();

// As text: the line `cohort-prices 1`, then a line a value; `#` begins a comment. What a file does not say is as in DefaultPrices, but that a level is as the one inside it. Errors name
// `source` and the line.
//   inside_socket LATENCY_US GBIT_PER_S [GAP_US]    also inside_host, between_hosts, between_racks
//   ranks_per_socket N    hosts_per_rack N    rails N    memory_gbit_per_s X
std::string FormatPrices(const Prices& prices);
absl::StatusOr<Prices> ParsePrices(absl::string_view text, absl::string_view source);

}  // namespace cohort::comm
