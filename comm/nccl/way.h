// Which form a collective on device memory takes where ranks are on several hosts: the one that is priced better.
#pragma once

#include <cstddef>
#include <cstdint>

#include "comm/operation.h"

namespace cohort::comm::nccl {

// kNccl: NCCL over everything. kHosts: NCCL inside hosts, the base communicator's network between them.
enum class Way : uint8_t { kNccl, kHosts };

// What one way costs: so long whatever the size, and so long a byte that crosses the network of a host.
struct WayPrice {
  double seconds = 0;
  double seconds_per_byte = 0;
};
struct WayPrices {
  WayPrice nccl;
  WayPrice hosts;
};

// Bytes that cross the network of one host, in one direction, where the buffer (or all parts) has `bytes`.
double CrossingBytes(Operation operation, size_t bytes, int num_hosts);
// Equal on all ranks where the arguments are. Operations without a hierarchical plan go by NCCL.
Way ChooseWay(const WayPrices& prices, Operation operation, size_t bytes, int num_hosts);
// The line through two measurements of an all-reduce, neither of whose numbers is negative.
WayPrice PriceOf(double small_bytes, double small_seconds, double large_bytes, double large_seconds);

}  // namespace cohort::comm::nccl
