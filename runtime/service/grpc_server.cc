#include "runtime/service/grpc_server.h"

#include <grpc/support/log.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>
#include <spdlog/spdlog.h>

#include <mutex>

#include "absl/strings/str_cat.h"
#include "runtime/service/listen_error.h"

namespace cohort::runtime {

GrpcServer::GrpcServer() = default;
GrpcServer::~GrpcServer() = default;

absl::StatusOr<std::unique_ptr<GrpcServer>> GrpcServer::Start(const GrpcServerOptions& options,
                                                              grpc::Service& service,
                                                              const std::string& name) {
  static std::once_flag plugins;
  std::call_once(plugins, [] {
    grpc::EnableDefaultHealthCheckService(true);
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
    // What goes wrong comes back as a status; gRPC's own log would say it again with its source lines.
    gpr_set_log_function([](gpr_log_func_args* args) { spdlog::debug("gRPC: {}", args->message); });
  });
  const bool encrypted = options.credentials != nullptr;
  std::unique_ptr<GrpcServer> started(new GrpcServer);
  grpc::ServerBuilder builder;
  if (const std::string reason = WhyNoPort(options.address); !reason.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(options.who, ": cannot listen on '", options.address, "': ", reason));
  }
  builder.AddListeningPort(
      options.address, encrypted ? options.credentials : grpc::InsecureServerCredentials(), &started->port_);
  builder.RegisterService(&service);
  builder.SetMaxReceiveMessageSize(options.max_message_bytes);
  builder.SetMaxSendMessageSize(options.max_message_bytes);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                             static_cast<int>(absl::ToInt64Milliseconds(options.min_ping_interval)));
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  started->server_ = builder.BuildAndStart();
  if (started->server_ == nullptr || started->port_ == 0) {
    const std::string reason = WhyNotListen(options.address);
    return absl::InvalidArgumentError(
        absl::StrCat(options.who, ": cannot listen on '", options.address, "': ",
                     !reason.empty() ? reason
                     : encrypted     ? "the TLS files are not a certificate and its key"
                                     : "gRPC refuses the address"));
  }
  started->server_->GetHealthCheckService()->SetServingStatus(name, true);
  return started;
}

void GrpcServer::SetUnhealthy() { server_->GetHealthCheckService()->SetServingStatus(false); }

void GrpcServer::Shutdown(absl::Time deadline) {
  server_->Shutdown(absl::ToChronoTime(deadline));
  server_->Wait();
}

}  // namespace cohort::runtime
