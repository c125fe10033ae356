// A gRPC server for one service: address, limits, health, reflection.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace grpc {
class Server;
class ServerCredentials;
class Service;
}  // namespace grpc

namespace cohort::runtime {

struct GrpcServerOptions {
  std::string who = {};      // begins errors: "server"
  std::string address = {};  // host:port; port 0: any free one
  // Null: no encryption.
  std::shared_ptr<grpc::ServerCredentials> credentials = nullptr;
  int max_message_bytes = 0;
  absl::Duration min_ping_interval = absl::ZeroDuration();
};

// Serves from Start until it is shut down. Health (grpc.health.v1) answers for "" and the service's name; reflection is
// on.
class GrpcServer {
 public:
  // `service`, whose full name is `name`, must outlive it. INVALID_ARGUMENT: the address, or the credentials, cannot be
  // used; a port that another server has is an error, not a silent share of the calls.
  static absl::StatusOr<std::unique_ptr<GrpcServer>> Start(const GrpcServerOptions& options,
                                                           grpc::Service& service, const std::string& name);
  // Cancels what runs.
  ~GrpcServer();

  int port() const { return port_; }
  // Health says NOT_SERVING from now on.
  void SetUnhealthy();
  // No new calls; those that run have until then. Returns when all have ended.
  void Shutdown(absl::Time deadline);

 private:
  GrpcServer();
  std::unique_ptr<grpc::Server> server_;
  int port_ = 0;
};

}  // namespace cohort::runtime
