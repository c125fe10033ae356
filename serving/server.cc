#include "serving/server.h"

#include <grpcpp/security/server_credentials.h>

#include <fstream>
#include <sstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "comm/check.h"
#include "runtime/service/grpc_server.h"
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
  if (options.tls_certificate.empty() && options.tls_key.empty()) {
    return std::shared_ptr<grpc::ServerCredentials>();
  }
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
  std::unique_ptr<runtime::GrpcServer> server;
};

absl::StatusOr<std::unique_ptr<Server>> Server::Start(const ServerOptions& options, Engine& engine,
                                                      std::shared_ptr<const runtime::Tokenizer> tokenizer,
                                                      const v1::GetModelInfoResponse& info) {
  COHORT_ASSIGN_OR_RETURN(const auto credentials, Credentials(options));
  auto state = std::make_unique<State>(engine, std::move(tokenizer), info);
  COHORT_ASSIGN_OR_RETURN(state->server,
                          runtime::GrpcServer::Start({.who = "server",
                                                      .address = options.address,
                                                      .credentials = credentials,
                                                      .max_message_bytes = policy::kMaxMessageBytes,
                                                      .min_ping_interval = policy::kMinPingInterval},
                                                     state->service, v1::Inference::service_full_name()));
  return std::unique_ptr<Server>(new Server(std::move(state)));
}

Server::Server(std::unique_ptr<State> state) : state_(std::move(state)) {}

Server::~Server() { state_->server->Shutdown(absl::Now() + policy::kShutdownGrace); }

int Server::port() const { return state_->server->port(); }

void Server::SetUnhealthy() { state_->server->SetUnhealthy(); }

void Server::Drain(absl::Time deadline) {
  SetUnhealthy();
  state_->engine.Drain(deadline);
}

}  // namespace cohort::serving
