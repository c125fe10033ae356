#include "runtime/elastic/coordinator/coordinator.h"

#include <grpc/support/log.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>
#include <spdlog/spdlog.h>

#include <mutex>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "comm/check.h"
#include "runtime/elastic/coordinator/cluster_service.h"
#include "runtime/listen_error.h"

namespace cohort::cluster {

struct Coordinator::State {
  ClusterMetrics metrics;
  std::unique_ptr<Ledger> ledger;
  std::unique_ptr<ClusterService> service;
  std::unique_ptr<grpc::Server> server;
  int port = 0;
};

absl::StatusOr<std::unique_ptr<Coordinator>> Coordinator::Start(const CoordinatorOptions& options) {
  static std::once_flag plugins;
  std::call_once(plugins, [] {
    grpc::EnableDefaultHealthCheckService(true);
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
    // What goes wrong comes back as a status; gRPC's own log would say it again with its source lines.
    gpr_set_log_function([](gpr_log_func_args* args) { spdlog::debug("gRPC: {}", args->message); });
  });
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
  grpc::ServerBuilder builder;
  builder.AddListeningPort(options.listen, grpc::InsecureServerCredentials(), &state->port);
  builder.RegisterService(state->service.get());
  builder.SetMaxReceiveMessageSize(policy::kMaxMessageBytes);
  builder.SetMaxSendMessageSize(policy::kMaxMessageBytes);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                             static_cast<int>(absl::ToInt64Milliseconds(policy::kMinPingInterval)));
  // A second coordinator on a port that is taken is an error, not a silent share of the calls.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  state->server = builder.BuildAndStart();
  if (state->server == nullptr || state->port == 0) {
    const std::string why = runtime::WhyNotListen(options.listen);
    return absl::InvalidArgumentError(absl::StrCat("coordinator: cannot listen on '", options.listen,
                                                   "': ", why.empty() ? "gRPC refuses the address" : why));
  }
  state->server->GetHealthCheckService()->SetServingStatus(v1::Cluster::service_full_name(), true);
  return std::unique_ptr<Coordinator>(new Coordinator(std::move(state)));
}

Coordinator::Coordinator(std::unique_ptr<State> state) : state_(std::move(state)) {}

Coordinator::~Coordinator() {
  state_->server->GetHealthCheckService()->SetServingStatus(false);
  state_->ledger->EndWaits();
  state_->server->Shutdown(absl::ToChronoTime(absl::Now() + policy::kShutdownGrace));
  state_->server->Wait();
  state_->server.reset();
  state_->ledger.reset();
}

int Coordinator::port() const { return state_->port; }
int Coordinator::metrics_port() const { return state_->metrics.port(); }
absl::Status Coordinator::health() const { return state_->ledger->health(); }
std::string Coordinator::metrics() const { return state_->metrics.Text(); }

}  // namespace cohort::cluster
