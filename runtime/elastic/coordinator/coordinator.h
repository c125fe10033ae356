// The coordinator of an elastic job: its ledger behind gRPC, with health, reflection and metrics.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "runtime/elastic/coordinator/policy.h"

namespace cohort::cluster {

struct CoordinatorOptions {
  std::string state;                   // FOLDER or etcd://HOST:PORT/PREFIX
  std::string listen = "127.0.0.1:0";  // host:port; port 0: any free one
  std::string metrics;                 // host:port for Prometheus; empty: none
  std::string events;                  // file of events; empty: FOLDER/events.jsonl, none with etcd
  absl::Duration lease = policy::kLease;
};

class Coordinator {
 public:
  // INVALID_ARGUMENT: an option cannot be used. FAILED_PRECONDITION: another coordinator holds the state. DATA_LOSS:
  // the state is damaged.
  static absl::StatusOr<std::unique_ptr<Coordinator>> Start(const CoordinatorOptions& options);
  // NOT_SERVING, waiting calls are ended, and what has come is answered.
  ~Coordinator();

  int port() const;
  int live_members() const;
  int metrics_port() const;  // 0: none
  // Not OK: it can go on no longer and refuses everything.
  absl::Status health() const;
  // Prometheus' text.
  std::string metrics() const;

 private:
  struct State;
  explicit Coordinator(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace cohort::cluster
