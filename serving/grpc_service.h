// cohort.v1.Inference over an engine.
#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "cohort/v1/inference.grpc.pb.h"
#include "runtime/tokenizer/tokenizer.h"
#include "serving/engine.h"

namespace cohort::serving {

// Answers through gRPC's callbacks: no thread waits for a client or for the model. What a slow client has not
// taken yet is merged into one message, so that a request never holds more than its own answer. The engine
// must outlive the service. Thread-safe.
class GrpcService final : public v1::Inference::CallbackService {
 public:
  GrpcService(Engine& engine, std::shared_ptr<const runtime::Tokenizer> tokenizer,
              v1::GetModelInfoResponse info);

  grpc::ServerUnaryReactor* Generate(grpc::CallbackServerContext* context, const v1::GenerateRequest* request,
                                     v1::GenerateResponse* response) override;
  grpc::ServerWriteReactor<v1::GenerateStreamResponse>* GenerateStream(
      grpc::CallbackServerContext* context, const v1::GenerateRequest* request) override;
  grpc::ServerUnaryReactor* Tokenize(grpc::CallbackServerContext* context, const v1::TokenizeRequest* request,
                                     v1::TokenizeResponse* response) override;
  grpc::ServerUnaryReactor* Detokenize(grpc::CallbackServerContext* context,
                                       const v1::DetokenizeRequest* request,
                                       v1::DetokenizeResponse* response) override;
  grpc::ServerUnaryReactor* GetModelInfo(grpc::CallbackServerContext* context,
                                         const v1::GetModelInfoRequest* request,
                                         v1::GetModelInfoResponse* response) override;

 private:
  class Answer;
  class UnaryAnswer;
  class StreamAnswer;

  // Checks the request and hands it to the engine; an error ends the answer.
  void Submit(const grpc::CallbackServerContext& context, const v1::GenerateRequest& request,
              const std::shared_ptr<Answer>& answer);

  Engine& engine_;
  const std::shared_ptr<const runtime::Tokenizer> tokenizer_;
  const v1::GetModelInfoResponse info_;
  const uint64_t random_base_;  // differs between servers
  std::atomic<uint64_t> requests_ = 0;
};

}  // namespace cohort::serving
