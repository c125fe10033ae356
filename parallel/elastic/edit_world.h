// One edit of the world, over ties: again where the half that was first has died.
#pragma once

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "comm/communicator.h"
#include "parallel/elastic/counted_members.h"
#include "parallel/elastic/elastic_run.h"

namespace cohort::parallel {

// Collective over the world: takes in who waits at the host's board, and takes out who is lost. Over several hosts a side
// needs more than half of the members that count, or half of them and the host's word. Errors are those of
// comm::Communicator::Grow.
absl::StatusOr<comm::MembershipChange> EditWorld(comm::Communicator& world, ElasticHost& host,
                                                 absl::Duration patience, const CountedMembers& counted);

}  // namespace cohort::parallel
