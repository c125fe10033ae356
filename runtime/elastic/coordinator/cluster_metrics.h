// What the coordinator measures, for Prometheus.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "cohort/v1/cluster.pb.h"
#include "runtime/elastic/coordinator/cluster_state.h"

namespace cohort::cluster {

// Thread-safe.
class ClusterMetrics {
 public:
  ClusterMetrics();
  ~ClusterMetrics();

  // Serves /metrics over HTTP at "host:port" from now on. INVALID_ARGUMENT where that cannot be bound.
  absl::Status Expose(const std::string& address);
  // The port that Expose has bound; 0: none.
  int port() const;
  int live_members() const;
  // The exposition text.
  std::string Text() const;

  void Set(const ClusterState& state);
  void Count(const std::vector<v1::Event>& events);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace cohort::cluster
