// What ranks tell each other over the network of the host while NCCL works: that they live, how far they are, and what they
// called. NCCL itself knows none of that: where a peer is gone, late, or calls something else, its kernels wait for ever.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "comm/communicator.h"
#include "comm/nccl/policy.h"
#include "comm/operation.h"

namespace cohort::comm::nccl {

// How far a rank is. Collectives are numbered from 1 on, the same on all ranks.
struct Pulse {
  uint64_t started = 0;                           // collectives that it has called
  uint64_t finished = 0;                          // of those, that are over
  uint64_t closing = 0;                           // 1: nothing comes after
  std::array<Signature, policy::kTold> called{};  // the latest ones; number n is at n % kTold
};

// Rounds in a group of its own: one is always in flight, or about to be, so the group's transports watch all peers, and who
// is lost ends the round everywhere. Used by one thread, but for over().
class PeerWatch {
 public:
  explicit PeerWatch(std::unique_ptr<Communicator> group);
  // Ends a round that is in flight, on all ranks, with `why` where the watch is not over.
  void End(const absl::Status& why);

  // Begins, or looks at, a round; never waits. What ends the group is the error of the round, or INVALID_ARGUMENT where
  // ranks have called different collectives.
  absl::Status Step(const Pulse& own, bool busy);
  // A rank has closed: there are no rounds any more.
  bool over() const { return over_; }
  // Why collective `number`, or messages to or from these world ranks (where there are any), are not over.
  absl::Status Late(uint64_t number, const std::vector<int>& peers, const std::string& what) const;

 private:
  absl::Status Judge() const;

  const std::unique_ptr<Communicator> group_;
  Pulse told_;
  std::vector<Pulse> known_, arriving_;  // by rank: of the latest round, and of the one in flight
  bool in_flight_ = false;
  Work round_;
  absl::Time next_ = absl::InfinitePast();
  std::atomic<bool> over_{false};
};

}  // namespace cohort::comm::nccl
