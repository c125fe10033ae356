// A member's part where half of its group goes on by the coordinator's word: asks for it, and trains on only while it may.
// Why that makes no two groups that train is told in cluster_state_ties.cc.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "runtime/elastic/coordinator/client.h"

namespace cohort::cluster {

// Not thread-safe, but for the functions that Claim gives. Epochs are the communicator's, of which the coordinator's are one
// ahead (its first is 1).
class TieBond {
 public:
  // The client must outlive it.
  explicit TieBond(Client& client) : client_(client) {}

  // Who is in the group in this epoch, by rank.
  void SetGroup(uint32_t epoch, std::vector<std::string> names);
  // comm::EditOptions::tie for an edit of the group of this epoch with these members, by rank. Says no where it does not
  // know all their names: who is bound to a lease must be known by it.
  std::function<bool(const std::vector<int>& half)> Claim(uint32_t epoch, const std::vector<int>& members);
  // The edit had no quorum. Waits while the other half, which was first, may be dead, up to policy::kTieWait. True: this
  // half goes on, edit again. False: it does not, or nobody has asked for it, or the coordinator is away.
  bool Await(uint32_t epoch);
  // Half of the members have decided: from now on this member is bound to its lease.
  void Bind();
  // Before an update of the state and before a checkpoint. Where this member is bound and its lease has run out it waits
  // until the lease is back, up to policy::kHoldPatience. FAILED_PRECONDITION (comm::Exclusion): it must not go on.
  absl::Status Hold();

 private:
  using Steady = std::chrono::steady_clock;

  Client& client_;
  const Steady::time_point begun_ = Steady::now();
  uint32_t epoch_ = 0;
  std::vector<std::string> names_;
  bool claimed_ = false;  // by this process, which leads the half
  bool bound_ = false;
  Steady::time_point bound_at_ = {};
  bool been_in_ = false;  // the coordinator has it in an epoch
};

}  // namespace cohort::cluster
