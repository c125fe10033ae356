#include "comm/nccl/way.h"

#include <algorithm>

#include "comm/nccl/plan.h"

namespace cohort::comm::nccl {

double CrossingBytes(Operation operation, size_t bytes, int num_hosts) {
  const double others = static_cast<double>(num_hosts - 1) / num_hosts;
  switch (operation) {
    case Operation::kAllReduce:
      return 2 * others * static_cast<double>(bytes);
    case Operation::kAllGather:
    case Operation::kReduceScatter:
      return others * static_cast<double>(bytes);
    default:
      return static_cast<double>(bytes);
  }
}

Way ChooseWay(const WayPrices& prices, Operation operation, size_t bytes, int num_hosts) {
  if (num_hosts < 2 || !HasHierarchicalPlan(operation)) return Way::kNccl;
  const double crossing = CrossingBytes(operation, bytes, num_hosts);
  const auto cost = [&](const WayPrice& price) { return price.seconds + price.seconds_per_byte * crossing; };
  return cost(prices.hosts) < cost(prices.nccl) ? Way::kHosts : Way::kNccl;
}

WayPrice PriceOf(double small_bytes, double small_seconds, double large_bytes, double large_seconds) {
  WayPrice price;
  price.seconds_per_byte = std::max(0.0, (large_seconds - small_seconds) / (large_bytes - small_bytes));
  price.seconds = std::max(0.0, small_seconds - price.seconds_per_byte * small_bytes);
  return price;
}

}  // namespace cohort::comm::nccl
