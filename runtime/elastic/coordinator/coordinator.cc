#include "runtime/elastic/coordinator/coordinator.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "comm/check.h"
#include "runtime/elastic/coordinator/cluster_service.h"
#include "runtime/service/grpc_server.h"
#include "runtime/service/listen_error.h"

namespace cohort::cluster {

struct Coordinator::State {
  ClusterMetrics metrics;
  std::unique_ptr<Ledger> ledger;
  std::unique_ptr<ClusterService> service;
  std::unique_ptr<runtime::GrpcServer> server;
};

absl::StatusOr<std::unique_ptr<Coordinator>> Coordinator::Start(const CoordinatorOptions& options) {
  if (options.lease < policy::kShortestLease || options.lease > policy::kLongestLease) {
    return absl::InvalidArgumentError(absl::StrCat(
        "a lease of ", absl::FormatDuration(options.lease), "; it may last ",
        absl::FormatDuration(policy::kShortestLease), " to ", absl::FormatDuration(policy::kLongestLease)));
  }
  // Before the state is touched: who cannot listen must not take it over from a coordinator that can.
  const std::string reason = runtime::WhyNotListen(options.listen);
  if (!reason.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("coordinator: cannot listen on '", options.listen, "': ", reason));
  }
  auto state = std::make_unique<State>();
  if (!options.metrics.empty()) COHORT_RETURN_IF_ERROR(state->metrics.Expose(options.metrics));
  COHORT_ASSIGN_OR_RETURN(auto journal, OpenJournal(options.state));
  std::string events_path = options.events;
  if (events_path.empty() && IsFolder(options.state)) events_path = options.state + "/events.jsonl";
  std::unique_ptr<EventLog> events;
  if (!events_path.empty()) {
    COHORT_ASSIGN_OR_RETURN(EventLog log, EventLog::Open(events_path));
    events = std::make_unique<EventLog>(std::move(log));
  }
  COHORT_ASSIGN_OR_RETURN(state->ledger,
                          Ledger::Open(std::move(journal), options.lease, std::move(events), state->metrics));
  state->service = std::make_unique<ClusterService>(*state->ledger);
  COHORT_ASSIGN_OR_RETURN(state->server,
                          runtime::GrpcServer::Start({.who = "coordinator",
                                                      .address = options.listen,
                                                      .max_message_bytes = policy::kMaxMessageBytes,
                                                      .min_ping_interval = policy::kMinPingInterval},
                                                     *state->service, v1::Cluster::service_full_name()));
  return std::unique_ptr<Coordinator>(new Coordinator(std::move(state)));
}

Coordinator::Coordinator(std::unique_ptr<State> state) : state_(std::move(state)) {}

Coordinator::~Coordinator() {
  state_->server->SetUnhealthy();
  state_->ledger->EndWaits();
  state_->server->Shutdown(absl::Now() + policy::kShutdownGrace);
  state_->server.reset();
  state_->ledger.reset();
}

int Coordinator::port() const { return state_->server->port(); }
int Coordinator::live_members() const { return state_->metrics.live_members(); }
int Coordinator::metrics_port() const { return state_->metrics.port(); }
absl::Status Coordinator::health() const { return state_->ledger->health(); }
std::string Coordinator::metrics() const { return state_->metrics.Text(); }

}  // namespace cohort::cluster
