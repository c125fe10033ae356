// A client of the inference service.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "cohort/v1/inference.pb.h"

namespace cohort::serving {

struct ClientOptions {
  // PEM file of certificates to trust; empty: no encryption.
  std::string tls_roots;
  // Connections of their own instead of one that all clients of an address share.
  bool own_connection = false;
};

// Thread-safe. Errors are the service's statuses; UNAVAILABLE names the address where no server can be reached. Every call
// ends by `deadline` (DEADLINE_EXCEEDED).
class Client {
 public:
  // Connects lazily. INVALID_ARGUMENT: the trust file cannot be read.
  static absl::StatusOr<std::unique_ptr<Client>> Create(const std::string& address,
                                                        ClientOptions options = {});
  ~Client();

  // Waits until the server can be reached. UNAVAILABLE names the address.
  absl::Status WaitUntilConnected(absl::Time deadline);

  absl::StatusOr<v1::GenerateResponse> Generate(const v1::GenerateRequest& request, absl::Time deadline);
  // Calls `on_message` for each message as it comes; where it returns false the call is cancelled and ends
  // with CANCELLED. Returns all messages merged.
  absl::StatusOr<v1::GenerateResponse> GenerateStream(
      const v1::GenerateRequest& request, absl::Time deadline,
      const std::function<bool(const v1::GenerateStreamResponse&)>& on_message);
  absl::StatusOr<v1::TokenizeResponse> Tokenize(const v1::TokenizeRequest& request, absl::Time deadline);
  absl::StatusOr<v1::DetokenizeResponse> Detokenize(const v1::DetokenizeRequest& request,
                                                    absl::Time deadline);
  absl::StatusOr<v1::GetModelInfoResponse> GetModelInfo(absl::Time deadline);
  // What the health service says of `service` ("": the whole server): true is SERVING.
  absl::StatusOr<bool> Healthy(const std::string& service, absl::Time deadline);

 private:
  struct State;
  explicit Client(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace cohort::serving
