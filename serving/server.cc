#include "serving/server.h"

#include <grpc/support/log.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>
#include <spdlog/spdlog.h>

#include <fstream>
#include <mutex>
#include <sstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "comm/check.h"
#include "runtime/listen_error.h"
#include "serving/grpc_service.h"
#include "serving/policy.h"

namespace cohort::serving {
namespace {

absl::StatusOr<std::string> ReadFile(const char* option, const std::string& path) {
  std::ifstream file(path);
  std::ostringstream text;
  if (!file || !(text << file.rdbuf())) {
    return absl::InvalidArgumentError(absl::StrCat("server: ", option, " '", path, "' cannot be read"));
  }
  return text.str();
}

absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> Credentials(const ServerOptions& options) {
  if (options.tls_certificate.empty() && options.tls_key.empty()) return grpc::InsecureServerCredentials();
  if (options.tls_certificate.empty() || options.tls_key.empty()) {
    return absl::InvalidArgumentError("server: tls_certificate and tls_key must be given together");
  }
  COHORT_ASSIGN_OR_RETURN(const std::string certificate,
                          ReadFile("tls_certificate", options.tls_certificate));
  COHORT_ASSIGN_OR_RETURN(const std::string key, ReadFile("tls_key", options.tls_key));
  grpc::SslServerCredentialsOptions ssl;
  ssl.pem_key_cert_pairs.push_back({key, certificate});
  return grpc::SslServerCredentials(ssl);
}

}  // namespace

struct Server::State {
  State(Engine& engine, std::shared_ptr<const runtime::Tokenizer> tokenizer,
        const v1::GetModelInfoResponse& info)
      : engine(engine), service(engine, std::move(tokenizer), info) {}

  Engine& engine;
  GrpcService service;
  std::unique_ptr<grpc::Server> server;
  int port = 0;
};

absl::StatusOr<std::unique_ptr<Server>> Server::Start(const ServerOptions& options, Engine& engine,
                                                      std::shared_ptr<const runtime::Tokenizer> tokenizer,
                                                      const v1::GetModelInfoResponse& info) {
  static std::once_flag plugins;
  std::call_once(plugins, [] {
    grpc::EnableDefaultHealthCheckService(true);
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
    // What goes wrong comes back as a status; gRPC's own log would say it again with its source lines.
    gpr_set_log_function([](gpr_log_func_args* args) { spdlog::debug("gRPC: {}", args->message); });
  });
  COHORT_ASSIGN_OR_RETURN(const auto credentials, Credentials(options));
  auto state = std::make_unique<State>(engine, std::move(tokenizer), info);
  grpc::ServerBuilder builder;
  builder.AddListeningPort(options.address, credentials, &state->port);
  builder.RegisterService(&state->service);
  builder.SetMaxReceiveMessageSize(policy::kMaxMessageBytes);
  builder.SetMaxSendMessageSize(policy::kMaxMessageBytes);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                             static_cast<int>(absl::ToInt64Milliseconds(policy::kMinPingInterval)));
  // A second server on a port that is taken is an error, not a silent share of the requests.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  state->server = builder.BuildAndStart();
  if (state->server == nullptr || state->port == 0) {
    const std::string reason = runtime::WhyNotListen(options.address);
    return absl::InvalidArgumentError(absl::StrCat("server: cannot listen on '", options.address, "': ",
                                                   !reason.empty() ? reason
                                                   : options.tls_certificate.empty()
                                                       ? "gRPC refuses the address"
                                                       : "the TLS files are not a certificate and its key"));
  }
  state->server->GetHealthCheckService()->SetServingStatus(v1::Inference::service_full_name(), true);
  return std::unique_ptr<Server>(new Server(std::move(state)));
}

Server::Server(std::unique_ptr<State> state) : state_(std::move(state)) {}

Server::~Server() { state_->server->Shutdown(absl::ToChronoTime(absl::Now() + policy::kShutdownGrace)); }

int Server::port() const { return state_->port; }

void Server::SetUnhealthy() { state_->server->GetHealthCheckService()->SetServingStatus(false); }

void Server::Drain(absl::Time deadline) {
  SetUnhealthy();
  state_->engine.Drain(deadline);
}

}  // namespace cohort::serving
