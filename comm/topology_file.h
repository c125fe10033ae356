// A machine as text: where its ranks are, and what messages cost on it. Read by jobs (COHORT_TOPOLOGY) and by `cohort
// plan`, which also writes it; and how ranks tell each other the prices that were measured.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "comm/host_map.h"
#include "comm/tuner/prices.h"

namespace cohort::comm {

// The line `cohort-topology 1`, then a line for each thing that is said; `#` begins a comment.
//
// Where ranks are, numbered from 0 on, host by host: groups of hosts that are alike,
//   hosts 4 ranks 8 sockets 2 numa 4     8 ranks on each, as many on each of its sockets, and of its NUMA domains
// or one line a rank, in their order:
//   rank 0 host 0 socket 1 numa 2        numbers as hwloc and the operating system have them
// sockets, numa, socket and numa may be left out.
//
// What a message costs: its latency, the rate of the link, and how long it takes the link besides its bytes (0.1 where
// left out):
//   inside_numa LATENCY_US GBIT_PER_S [GAP_US]     also inside_socket, inside_host, between_hosts, between_racks
// Levels that are not said are as the next one: inside hosts as the wider one, or else the narrower; between racks as
// between hosts. With no level of a kind, as DefaultPrices.
//
//   hosts_per_rack N    0: all hosts are equally near
//   rails N             links of a host, on which its ranks take turns; 0: each rank has its own
//   memory_gbit_per_s X of copies and sums inside a rank
struct DescribedTopology {
  std::shared_ptr<const HostMap> hosts;  // null: not said
  Prices prices;
};

// Errors name `source`, the line, and for an unknown key the nearest known one.
absl::StatusOr<DescribedTopology> ParseTopology(absl::string_view text, absl::string_view source);

// The other way. `hosts` may be null.
std::string FormatTopology(const HostMap* hosts, const Prices& prices);

}  // namespace cohort::comm
