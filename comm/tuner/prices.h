// What messages cost on this machine, level by level: what the tuner chooses by.
#pragma once

#include <memory>

#include "comm/host_map.h"
#include "comm/pricing.h"

namespace cohort::comm {

// A Machine without its hosts, which each group has its own of.
struct Prices {
  LinkPrice price[kNumDistances];  // by Distance
  double gap[kNumDistances] = {};
  int hosts_per_rack = 0;
  int rails = 1;
  double local_seconds_per_byte = 0;

  Machine On(std::shared_ptr<const HostMap> hosts) const;
};

// Of ranks that share memory, and hosts some ten gigabits apart: where nothing was measured or declared.
Prices DefaultPrices();

}  // namespace cohort::comm
