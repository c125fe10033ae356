#include "comm/tuner/prices.h"

#include <algorithm>
#include <utility>

#include "comm/tuner/policy.h"

namespace cohort::comm {

Machine Prices::On(std::shared_ptr<const HostMap> hosts) const {
  Machine machine;
  machine.hosts = std::move(hosts);
  std::copy(std::begin(price), std::end(price), std::begin(machine.price));
  std::copy(std::begin(gap), std::end(gap), std::begin(machine.gap));
  machine.hosts_per_rack = hosts_per_rack;
  machine.rails = rails;
  machine.local_seconds_per_byte = local_seconds_per_byte;
  machine.drift = policy::kDrift;
  return machine;
}

Prices DefaultPrices() {
  Prices prices;
  for (int level = 0; level < kNumDistances; ++level) {
    const bool local = static_cast<Distance>(level) < Distance::kRack;
    prices.price[level] = local ? LinkPrice{policy::kLocalLatency, policy::kLocalSecondsPerByte}
                                : LinkPrice{policy::kRemoteLatency, policy::kRemoteSecondsPerByte};
    prices.gap[level] = local ? policy::kLocalGap : policy::kRemoteGap;
  }
  prices.local_seconds_per_byte = policy::kLocalSecondsPerByte;
  return prices;
}

}  // namespace cohort::comm
