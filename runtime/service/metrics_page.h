// A registry of metrics, and the page on which Prometheus reads it.
#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"

namespace prometheus {
class Exposer;
class Registry;
}  // namespace prometheus

namespace cohort::runtime {

// The registry is thread-safe, and so are Text and port after Expose.
class MetricsPage {
 public:
  MetricsPage();
  ~MetricsPage();

  prometheus::Registry& registry() { return *registry_; }

  // Serves /metrics over HTTP at "host:port" from now on. INVALID_ARGUMENT where that cannot be bound.
  absl::Status Expose(const std::string& address);
  // The port that Expose has bound, for addresses that end in ":0"; 0: none.
  int port() const;
  // The exposition text.
  std::string Text() const;

 private:
  std::shared_ptr<prometheus::Registry> registry_;
  std::unique_ptr<prometheus::Exposer> exposer_;
};

}  // namespace cohort::runtime
