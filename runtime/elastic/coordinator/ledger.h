// The coordinator's state over its journal.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "cohort/v1/cluster.pb.h"
#include "cohort/v1/cluster_journal.pb.h"
#include "runtime/elastic/coordinator/cluster_metrics.h"
#include "runtime/elastic/coordinator/cluster_state.h"
#include "runtime/elastic/coordinator/event_log.h"
#include "runtime/elastic/coordinator/journal.h"

namespace cohort::cluster {

// One thread owns the state. It takes the commands that have come, makes what they change durable in one write, and
// only then answers. Where a write fails the state is read again: nobody is told what is not durable. All calls return
// at once; what they are given runs in the thread, once, and must not block.
class Ledger {
 public:
  // Reads the journal and begins to serve what is in it. `events` may be null.
  static absl::StatusOr<std::unique_ptr<Ledger>> Open(std::unique_ptr<Journal> journal, absl::Duration lease,
                                                      std::unique_ptr<EventLog> events,
                                                      ClusterMetrics& metrics);
  // What has come is answered; what waits gets UNAVAILABLE.
  ~Ledger();

  using Done = std::function<void(Outcome& outcome)>;
  void Submit(v1::ClusterCommand command, Done done);
  // `usable` is not OK where the state must not be shown.
  using Look = std::function<void(const absl::Status& usable, const ClusterState& state, absl::Time now)>;
  void Read(Look look);
  // Looks after every change until `ready` says true, or at the deadline, or when waiting ends: `over` says why then.
  using Ready = std::function<bool(const ClusterState& state)>;
  void Wait(absl::Time deadline, Ready ready, std::function<void(const absl::Status& why)> over);
  // Ends all waiting, also what comes later, with UNAVAILABLE.
  void EndWaits();

  // Not OK: another coordinator has taken over, or the journal can no longer be read. Everything is refused then.
  absl::Status health() const;

 private:
  struct Core;
  explicit Ledger(std::unique_ptr<Core> core);
  std::unique_ptr<Core> core_;
};

}  // namespace cohort::cluster
