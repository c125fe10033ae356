// `cohort serve` as a function: one model, served by all ranks of a communicator.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "comm/communicator.h"
#include "runtime/model/decoder.h"
#include "runtime/tokenizer/tokenizer.h"
#include "serving/decoder_runner.h"
#include "serving/engine.h"
#include "serving/policy.h"
#include "serving/server.h"

namespace cohort::serving {

struct ServeOptions {
  std::string model_name;  // what clients call it
  ServerOptions server;
  EngineOptions engine;
  CacheOptions cache;           // of each rank
  std::string metrics_address;  // host:port for Prometheus; empty: none
  absl::Duration drain_grace = policy::kDrainGrace;
  // Rank 0, once the server answers: its port and that of the metrics (0: none).
  std::function<void(int port, int metrics_port)> on_ready;
  // Rank 0 drains when this is true; asked every policy::kSupervisionInterval. Must be set. A launcher sends
  // SIGTERM to every rank: it must not end the others, which rank 0 tells when to end.
  std::function<bool()> should_stop;
};

// Every rank of `communicator` calls it with its own part of the model: rank 0 serves, the others follow it.
// Returns on all ranks when the server has drained (OK), or with what failed. Signals are the caller's business.
// `decoder` and `communicator` must outlive the call; no one else may use them meanwhile.
absl::Status Serve(const ServeOptions& options, runtime::Decoder& decoder,
                   std::shared_ptr<const runtime::Tokenizer> tokenizer, comm::Communicator& communicator);

}  // namespace cohort::serving
