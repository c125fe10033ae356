// The rendezvous that the coordinator keeps.
#pragma once

#include <memory>
#include <string>

#include "comm/rendezvous.h"
#include "runtime/elastic/coordinator/client.h"

namespace cohort::cluster {

// Of the `size` processes that share `launch_id`; this one is `rank`. The client need not have joined.
std::shared_ptr<comm::Rendezvous> GrpcRendezvous(std::shared_ptr<Client> client, const std::string& launch_id,
                                                 int rank, int size);

}  // namespace cohort::cluster
