#include "serving/client.h"

#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

#include <fstream>
#include <sstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "cohort/v1/inference.grpc.pb.h"
#include "serving/policy.h"
#include "serving/wire.h"

namespace cohort::serving {
namespace {

void SetDeadline(grpc::ClientContext& context, absl::Time deadline) {
  if (deadline != absl::InfiniteFuture()) context.set_deadline(absl::ToChronoTime(deadline));
}

}  // namespace

struct Client::State {
  std::string address;
  std::shared_ptr<grpc::Channel> channel;
  std::unique_ptr<v1::Inference::Stub> stub;

  // gRPC's own words do not always say what was tried.
  absl::Status Failure(const grpc::Status& status) const {
    if (status.error_code() != grpc::StatusCode::UNAVAILABLE ||
        channel->GetState(/*try_to_connect=*/false) != GRPC_CHANNEL_TRANSIENT_FAILURE) {
      return FromWire(status);
    }
    return absl::UnavailableError(
        absl::StrCat("no server answers at ", address, " (", status.error_message(), ")"));
  }

  template <typename Request, typename Response>
  absl::StatusOr<Response> Call(grpc::Status (v1::Inference::Stub::*method)(grpc::ClientContext*,
                                                                            const Request&, Response*),
                                const Request& request, absl::Time deadline) {
    grpc::ClientContext context;
    SetDeadline(context, deadline);
    Response response;
    const grpc::Status status = (stub.get()->*method)(&context, request, &response);
    if (!status.ok()) return Failure(status);
    return response;
  }
};

absl::StatusOr<std::unique_ptr<Client>> Client::Create(const std::string& address, ClientOptions options) {
  std::shared_ptr<grpc::ChannelCredentials> credentials = grpc::InsecureChannelCredentials();
  if (!options.tls_roots.empty()) {
    std::ifstream file(options.tls_roots);
    std::ostringstream roots;
    if (!file || !(roots << file.rdbuf())) {
      return absl::InvalidArgumentError(
          absl::StrCat("client: tls_roots '", options.tls_roots, "' cannot be read"));
    }
    credentials = grpc::SslCredentials({roots.str(), "", ""});
  }
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(policy::kMaxMessageBytes);
  arguments.SetMaxSendMessageSize(policy::kMaxMessageBytes);
  if (options.own_connection) arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  auto state = std::make_unique<State>();
  state->address = address;
  state->channel = grpc::CreateCustomChannel(address, credentials, arguments);
  state->stub = v1::Inference::NewStub(state->channel);
  return std::unique_ptr<Client>(new Client(std::move(state)));
}

Client::Client(std::unique_ptr<State> state) : state_(std::move(state)) {}
Client::~Client() = default;

absl::Status Client::WaitUntilConnected(absl::Time deadline) {
  if (state_->channel->WaitForConnected(absl::ToChronoTime(deadline))) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat("no server answers at ", state_->address));
}

absl::StatusOr<v1::GenerateResponse> Client::Generate(const v1::GenerateRequest& request,
                                                      absl::Time deadline) {
  return state_->Call(&v1::Inference::Stub::Generate, request, deadline);
}

absl::StatusOr<v1::GenerateResponse> Client::GenerateStream(
    const v1::GenerateRequest& request, absl::Time deadline,
    const std::function<bool(const v1::GenerateStreamResponse&)>& on_message) {
  grpc::ClientContext context;
  SetDeadline(context, deadline);
  const auto reader = state_->stub->GenerateStream(&context, request);
  v1::GenerateResponse whole;
  v1::GenerateStreamResponse part;
  while (reader->Read(&part)) {
    MergeResponse(part, whole);
    if (!on_message(part)) context.TryCancel();
  }
  const grpc::Status status = reader->Finish();
  if (!status.ok()) return state_->Failure(status);
  return whole;
}

absl::StatusOr<v1::TokenizeResponse> Client::Tokenize(const v1::TokenizeRequest& request,
                                                      absl::Time deadline) {
  return state_->Call(&v1::Inference::Stub::Tokenize, request, deadline);
}

absl::StatusOr<v1::DetokenizeResponse> Client::Detokenize(const v1::DetokenizeRequest& request,
                                                          absl::Time deadline) {
  return state_->Call(&v1::Inference::Stub::Detokenize, request, deadline);
}

absl::StatusOr<v1::GetModelInfoResponse> Client::GetModelInfo(absl::Time deadline) {
  return state_->Call(&v1::Inference::Stub::GetModelInfo, v1::GetModelInfoRequest(), deadline);
}

// The two messages of grpc.health.v1 have one field each (a string; an enum whose 1 is SERVING), so they are
// written and read as bytes instead of compiling one more proto file.
absl::StatusOr<bool> Client::Healthy(const std::string& service, absl::Time deadline) {
  const std::string bytes = absl::StrCat("\x0a", std::string(1, static_cast<char>(service.size())), service);
  const grpc::Slice slice(bytes);
  const grpc::ByteBuffer request(&slice, 1);
  grpc::ClientContext context;
  SetDeadline(context, deadline);
  grpc::GenericStub stub(state_->channel);
  grpc::CompletionQueue queue;
  grpc::ByteBuffer response;
  grpc::Status status;
  const auto call = stub.PrepareUnaryCall(&context, "/grpc.health.v1.Health/Check", request, &queue);
  call->StartCall();
  call->Finish(&response, &status, nullptr);
  void* tag;
  bool ok;
  queue.Next(&tag, &ok);
  if (!status.ok()) return state_->Failure(status);
  grpc::Slice answer;
  if (!response.DumpToSingleSlice(&answer).ok()) return absl::InternalError("an unreadable health answer");
  return answer.size() == 2 && answer.begin()[0] == 0x08 && answer.begin()[1] == 0x01;
}

}  // namespace cohort::serving
