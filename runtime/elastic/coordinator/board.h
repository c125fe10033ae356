// The join board that the coordinator keeps.
#pragma once

#include <memory>

#include "absl/time/time.h"
#include "comm/membership/join_board.h"
#include "runtime/elastic/coordinator/client.h"
#include "runtime/elastic/coordinator/policy.h"

namespace cohort::cluster {

struct BoardOptions {
  // How long a call goes on trying while the coordinator is away: UNAVAILABLE then. A newcomer waits for long; a member
  // that trains does not.
  absl::Duration patience = policy::kPatience;
  // Waiting() of a coordinator that is away says that nobody waits, so that a group goes on without newcomers.
  bool empty_when_away = false;
};

// Posts of a client that has joined are its member's: they are hidden while its lease has run out.
std::shared_ptr<comm::JoinBoard> GrpcJoinBoard(std::shared_ptr<Client> client, BoardOptions options = {});

}  // namespace cohort::cluster
