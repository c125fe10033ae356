#include "parallel/elastic/edit_world.h"

#include "parallel/elastic/policy.h"

namespace cohort::parallel {

absl::StatusOr<comm::MembershipChange> EditWorld(comm::Communicator& world, ElasticHost& host,
                                                 absl::Duration patience, const CountedMembers& counted) {
  const uint32_t epoch = world.epoch();
  const bool several_hosts = world.topology().num_hosts() > 1;
  const comm::EditOptions edit = {.patience = patience,
                                  .quorum = several_hosts,
                                  .counted_below = counted.bounds(),
                                  .tie = several_hosts ? host.Tie(epoch, world.members()) : nullptr};
  for (int attempt = 1;; ++attempt) {
    absl::StatusOr<comm::MembershipChange> change = absl::UnavailableError("");
    if (const auto board = host.board(); board != nullptr) change = world.Grow(board, edit);
    // A board that cannot be reached keeps newcomers waiting, and nobody else.
    if (!change.ok() && !absl::IsFailedPrecondition(change.status())) change = world.Shrink(edit);
    if (change.ok() && change->tied) host.OnTied();
    const bool no_quorum = comm::ExclusionOf(change.status()) == comm::Exclusion::kNoQuorum;
    if (!no_quorum || attempt >= elastic_policy::kTieAttempts || !host.AwaitTie(epoch)) return change;
  }
}

}  // namespace cohort::parallel
