#include "runtime/elastic/coordinator/tie_bond.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "absl/time/clock.h"
#include "comm/membership/edit.h"
#include "runtime/elastic/coordinator/policy.h"

namespace cohort::cluster {

void TieBond::SetGroup(uint32_t epoch, std::vector<std::string> names) {
  epoch_ = epoch;
  names_ = std::move(names);
}

std::function<bool(const std::vector<int>&)> TieBond::Claim(uint32_t epoch, const std::vector<int>& members) {
  const bool known = epoch == epoch_ && names_.size() == members.size();
  return [this, epoch, members, known, names = names_](const std::vector<int>& half) {
    std::vector<std::string> named;
    for (const int member : half) {
      const auto rank = std::find(members.begin(), members.end(), member);
      if (!known || rank == members.end()) return false;
      named.push_back(names[static_cast<size_t>(rank - members.begin())]);
    }
    const auto said = client_.Tie(uint64_t{epoch} + 1, named, absl::Now() + policy::kTiePatience);
    claimed_ = said.ok();
    return said.ok() && said->state() == v1::TIE_STATE_WON;
  };
}

bool TieBond::Await(uint32_t epoch) {
  const absl::Time deadline = absl::Now() + policy::kTieWait;
  while (absl::Now() < deadline) {
    const auto said = client_.Tie(uint64_t{epoch} + 1, {}, absl::Now() + policy::kTiePatience);
    if (!said.ok() || said->state() == v1::TIE_STATE_LOST) return false;
    if (said->state() == v1::TIE_STATE_WON) {
      // Whom the leader finds not ready yet, it takes to be lost.
      if (std::exchange(claimed_, false)) absl::SleepFor(policy::kTieLeaderPause);
      return true;
    }
    absl::SleepFor(policy::kTieLook);
  }
  return false;
}

void TieBond::Bind() {
  bound_ = true;
  bound_at_ = Steady::now();
}

absl::Status TieBond::Hold() {
  const absl::Time deadline = absl::Now() + policy::kHoldPatience;
  for (bool waited = false;; waited = true) {
    const Standing standing = client_.standing();
    been_in_ = been_in_ || (standing.in_epoch && standing.renewed > begun_);
    if (bound_ && standing.renewed > bound_at_ && standing.in_epoch && !standing.leased) {
      bound_ = false;
      spdlog::info("{} is bound to its lease no more", client_.name());
    }
    if (!bound_ && standing.leased) {
      bound_ = true;
      bound_at_ = standing.renewed;
    }
    if (!bound_) return absl::OkStatus();
    if (been_in_ && standing.evicted) {
      return comm::ExcludedStatus(
          comm::Exclusion::kRemoved,
          "this half of the members had the coordinator's word, and its leases have run out: "
          "the other half has taken over (" +
              standing.why + "). Join again");
    }
    if (Steady::now() < standing.lease_until && (!waited || standing.in_epoch)) return absl::OkStatus();
    if (absl::Now() >= deadline) {
      return comm::ExcludedStatus(
          comm::Exclusion::kNoQuorum,
          "this half of the members goes on by the coordinator's word, and has no lease any "
          "more: the coordinator is away. Begin again from a checkpoint, or join");
    }
    if (!waited) {
      spdlog::warn("{} waits for the coordinator: half of the members may go on only while their leases hold",
                   client_.name());
    }
    absl::SleepFor(policy::kTieLook);
  }
}

}  // namespace cohort::cluster
