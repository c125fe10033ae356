// Prices of algorithms on machines of any size: times without contents, up to 100,000 ranks and more in seconds.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "comm/algorithms/algorithm.h"
#include "comm/algorithms/policy.h"
#include "comm/host_map.h"
#include "comm/policy.h"
#include "comm/simulator.h"

namespace cohort::comm {

// The alpha-beta machine. Ranks send one message and receive one at a time on each of the levels inside a host; between
// hosts, the links (rails) of a host do, whether or not the message leaves the rack.
struct Machine {
  std::shared_ptr<const HostMap> hosts;
  LinkPrice price[kNumDistances];  // by Distance
  // What a message takes besides its bytes (the gap of LogGP, Alexandrov et al., 1995): inside a host on top of them,
  // between hosts partly while they are on the link.
  double gap[kNumDistances] = {};
  int hosts_per_rack = 0;  // 0: no racks; every host is at Distance::kRack
  int rails = 0;           // links of a host, its ranks take turns on them; 0: each rank has its own
  double local_seconds_per_byte = 1.0 / 10e9;  // of copies and reductions
  // Between hosts, in rounds that wait for the one before: how much longer bytes take because ranks have drifted apart,
  // as a part of their time. Less in turns, and where pieces follow each other.
  double drift = 0;

  Distance Between(int a, int b) const;
};

struct Price {
  double seconds = 0;
  double messages = 0;
  double bytes = 0;
  double remote_messages = 0;  // between hosts
  double remote_bytes = 0;
  double host_bytes = 0;  // sent to other hosts by the host that sends most
};

// What `algorithm` costs for `count` elements in all (TotalCount), in equal parts where ranks have parts, from or to
// rank 0 where there is a root. Messages are replayed one by one, as the simulator does, or, where these
// would be more than `replayed`, rounds that repeat themselves (rings, pairwise exchanges) are priced by their
// slowest member. Tests compare both with the simulator; how far they agree is in tests/comm/pricing_test.cc. An error
// where the algorithm has no price.
absl::StatusOr<Price> PriceOf(const Algorithm& algorithm, const Machine& machine, size_t count,
                              size_t element_bytes, size_t replayed = policy::kReplayedMessages,
                              size_t piece_bytes = policy::kPieceBytes);

}  // namespace cohort::comm
