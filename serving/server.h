// The gRPC server around an engine: address, TLS, health, reflection, draining.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "cohort/v1/inference.pb.h"
#include "runtime/tokenizer/tokenizer.h"
#include "serving/engine.h"

namespace cohort::serving {

struct ServerOptions {
  std::string address = "127.0.0.1:50051";  // port 0: any free one
  // PEM files; both or neither. Neither: no encryption.
  std::string tls_certificate, tls_key;
};

// Serves from Start to its end. Health (grpc.health.v1) answers for "" and "cohort.v1.Inference".
class Server {
 public:
  // The engine must outlive the server. INVALID_ARGUMENT: the address or a TLS file cannot be used.
  static absl::StatusOr<std::unique_ptr<Server>> Start(const ServerOptions& options, Engine& engine,
                                                       std::shared_ptr<const runtime::Tokenizer> tokenizer,
                                                       const v1::GetModelInfoResponse& info);
  ~Server();

  int port() const;
  // NOT_SERVING from now on, new requests get UNAVAILABLE; those that run have until `deadline` and are
  // aborted then (FINISH_REASON_ABORTED). Returns when all answers are handed to gRPC.
  void Drain(absl::Time deadline);
  // Health alone: for an engine that has failed.
  void SetUnhealthy();

 private:
  struct State;
  explicit Server(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace cohort::serving
