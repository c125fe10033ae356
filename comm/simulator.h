// The simulator: runs the schedules of all ranks together, without a cluster, to prove and to price them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "comm/operation.h"
#include "comm/schedule.h"

namespace cohort::comm {

// A message of n bytes takes latency + n * seconds_per_byte. A rank sends one message and receives one at a
// time on each level; latencies of several overlap. A link takes, of the messages that could leave, the one posted
// first.
struct LinkPrice {
  double latency = 0;
  double seconds_per_byte = 0;
};

struct SimulatedMachine {
  std::shared_ptr<const HostMap> hosts;  // null: one host
  LinkPrice local = {0.5e-6, 1.0 / 10e9};
  LinkPrice remote = {20e-6, 1.0 / 1.25e9};
  bool shared_link = false;  // the ranks of a host share one link to other hosts; else each has its own
  double local_seconds_per_byte = 1.0 / 10e9;  // of copies and reductions
};

struct Simulation {
  double seconds = 0;  // until the last rank is through
  uint64_t bytes = 0;  // in messages
  uint64_t remote_bytes = 0;
  uint64_t messages = 0;
};

// `collectives[r]` is what rank r calls, `schedules[r]` how it does it. An error says what is wrong:
// - a schedule is malformed (Validate),
// - two steps of a rank touch the same elements, one of them writes, and nothing orders them,
// - a step reads what was never written, or a message has another size than its receive,
// - some ranks wait for each other for ever, even though sends may last until their receives are posted,
// - the ranks of an all-reduce add in different orders, so that their results could differ in bits,
// - an output is not what the operation promises, or a barrier lets a rank through before all have come.
absl::StatusOr<Simulation> Simulate(absl::Span<const Collective> collectives,
                                    absl::Span<const Schedule> schedules, size_t element_bytes = 4,
                                    const SimulatedMachine& machine = {});

// That all ranks call `collective` (whose rank is ignored), for operations in which
// the arguments do not differ.
std::vector<Collective> ForAllRanks(const Collective& collective);

}  // namespace cohort::comm
