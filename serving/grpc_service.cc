#include "serving/grpc_service.h"

#include <mutex>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "serving/validate.h"
#include "serving/wire.h"

namespace cohort::serving {
namespace {

absl::Time DeadlineOf(const grpc::CallbackServerContext& context) {
  const auto deadline = context.deadline();
  if (deadline == std::chrono::system_clock::time_point::max()) return absl::InfiniteFuture();
  return absl::FromChrono(deadline);
}

uint64_t RandomBase() {
  std::random_device device;
  return static_cast<uint64_t>(device()) << 32 | device();
}

grpc::ServerUnaryReactor* FinishNow(grpc::CallbackServerContext* context, const grpc::Status& status) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(status);
  return reactor;
}

}  // namespace

// The answer to one request. Shared by the engine, which adds to it, and gRPC's reactor, which sends it; the
// reactor may go first. gRPC never runs a reaction inside a call that starts an operation, so calling it
// under the lock is safe.
class GrpcService::Answer : public GenerationSink {
 public:
  Answer(Engine& engine, std::shared_ptr<const runtime::Tokenizer> tokenizer)
      : engine_(engine), tokenizer_(std::move(tokenizer)) {}

  void SetRequestId(const std::string& id) { request_id_ = id; }
  const std::string& request_id() const { return request_id_; }

  void OnPrompt(const std::vector<int32_t>& tokens, std::vector<TokenScores> logprobs) override {
    std::lock_guard lock(mutex_);
    if (gone_) return;
    v1::PromptInfo& prompt = *pending_.mutable_prompt();
    prompt.mutable_token_ids()->Add(tokens.begin(), tokens.end());
    for (const TokenScores& scores : logprobs) ToWire(scores, *tokenizer_, *prompt.add_logprobs());
  }

  void OnDelta(Delta delta) override {
    std::lock_guard lock(mutex_);
    if (gone_) return;
    MergeDelta(delta, *tokenizer_, pending_);
    waiting_ = true;
    Advance();
  }

  void OnFinish(const absl::Status& status, const TokenUsage& usage) override {
    std::lock_guard lock(mutex_);
    finished_ = true;
    status_ = ToWire(status);
    if (status.ok() && !gone_) {
      ToWire(usage, *pending_.mutable_usage());
      waiting_ = true;
    }
    Advance();
  }

  void SetHandle(uint64_t handle) {
    std::lock_guard lock(mutex_);
    handle_ = handle;
  }

  // The client has gone: what it has not taken is dropped, and the engine told.
  void GiveUp() {
    uint64_t handle;
    {
      std::lock_guard lock(mutex_);
      gone_ = true;
      waiting_ = false;
      pending_.Clear();
      handle = std::exchange(handle_, 0);
    }
    if (handle != 0) engine_.Cancel(handle);
  }

 protected:
  // Under the lock: sends what can be sent.
  virtual void Advance() = 0;

  Engine& engine_;
  const std::shared_ptr<const runtime::Tokenizer> tokenizer_;
  std::string request_id_;
  std::mutex mutex_;
  v1::GenerateStreamResponse pending_;  // since the last message
  bool waiting_ = false;                // pending_ has something to send
  bool gone_ = false;
  bool finished_ = false;  // nothing comes any more; status_ says how it ended
  grpc::Status status_;
  uint64_t handle_ = 0;
};

class GrpcService::UnaryAnswer final : public Answer {
 public:
  class Reactor final : public grpc::ServerUnaryReactor {
   public:
    explicit Reactor(std::shared_ptr<UnaryAnswer> answer) : answer_(std::move(answer)) {}
    void OnCancel() override { answer_->GiveUp(); }
    void OnDone() override { delete this; }

   private:
    const std::shared_ptr<UnaryAnswer> answer_;
  };

  UnaryAnswer(Engine& engine, std::shared_ptr<const runtime::Tokenizer> tokenizer,
              v1::GenerateResponse* response)
      : Answer(engine, std::move(tokenizer)), response_(response) {}

  void Bind(Reactor* reactor) { reactor_ = reactor; }

 private:
  // The reactor and the response live until Finish.
  void Advance() override {
    if (!finished_) return;
    if (waiting_) MergeResponse(pending_, *response_);
    response_->set_request_id(request_id_);
    std::exchange(reactor_, nullptr)->Finish(status_);
  }

  v1::GenerateResponse* response_;
  Reactor* reactor_ = nullptr;
};

class GrpcService::StreamAnswer final : public Answer {
 public:
  class Reactor final : public grpc::ServerWriteReactor<v1::GenerateStreamResponse> {
   public:
    explicit Reactor(std::shared_ptr<StreamAnswer> answer) : answer_(std::move(answer)) {}
    void OnWriteDone(bool ok) override { answer_->OnWriteDone(ok); }
    void OnCancel() override { answer_->GiveUp(); }
    void OnDone() override { delete this; }

   private:
    const std::shared_ptr<StreamAnswer> answer_;
  };

  using Answer::Answer;
  void Bind(Reactor* reactor) { reactor_ = reactor; }

 private:
  void OnWriteDone(bool ok) {
    if (!ok) GiveUp();
    std::lock_guard lock(mutex_);
    writing_ = false;
    Advance();
  }

  // The reactor lives until Finish, which waits for the last write.
  void Advance() override {
    if (writing_) return;
    if (waiting_) {
      waiting_ = false;
      writing_ = true;
      in_flight_.Clear();
      in_flight_.Swap(&pending_);
      in_flight_.set_request_id(request_id_);
      reactor_->StartWrite(&in_flight_);
    } else if (finished_) {
      std::exchange(reactor_, nullptr)->Finish(status_);
    }
  }

  Reactor* reactor_ = nullptr;
  bool writing_ = false;
  v1::GenerateStreamResponse in_flight_;
};

GrpcService::GrpcService(Engine& engine, std::shared_ptr<const runtime::Tokenizer> tokenizer,
                         v1::GetModelInfoResponse info)
    : engine_(engine), tokenizer_(std::move(tokenizer)), info_(std::move(info)), random_base_(RandomBase()) {}

void GrpcService::Submit(const grpc::CallbackServerContext& context, const v1::GenerateRequest& request,
                         const std::shared_ptr<Answer>& answer) {
  const uint64_t number = requests_.fetch_add(1);
  answer->SetRequestId(request.request_id().empty()
                           ? absl::StrCat("cohort-", absl::Hex(random_base_, absl::kZeroPad16), "-", number)
                           : request.request_id());
  if (!request.model().empty() && request.model() != info_.name()) {
    answer->OnFinish(absl::NotFoundError(absl::StrCat("model '", request.model(), "' is not served here; '",
                                                      info_.name(), "' is")),
                     {});
    return;
  }
  const RequestLimits limits{engine_.runner_info().vocabulary_size, engine_.capacity()};
  // Any odd multiplier spreads the seeds; Philox makes unrelated numbers of related ones.
  auto valid = ValidateRequest(request, *tokenizer_, limits, random_base_ ^ (number * 0x9E3779B97F4A7C15u));
  if (!valid.ok()) {
    answer->OnFinish(valid.status(), {});
    return;
  }
  valid->request_id = answer->request_id();
  valid->deadline = DeadlineOf(context);
  const absl::StatusOr<uint64_t> handle = engine_.Submit(*std::move(valid), answer);
  if (handle.ok()) {
    answer->SetHandle(*handle);
  } else {
    answer->OnFinish(handle.status(), {});
  }
}

grpc::ServerUnaryReactor* GrpcService::Generate(grpc::CallbackServerContext* context,
                                                const v1::GenerateRequest* request,
                                                v1::GenerateResponse* response) {
  auto answer = std::make_shared<UnaryAnswer>(engine_, tokenizer_, response);
  auto* reactor = new UnaryAnswer::Reactor(answer);
  answer->Bind(reactor);
  Submit(*context, *request, answer);
  return reactor;
}

grpc::ServerWriteReactor<v1::GenerateStreamResponse>* GrpcService::GenerateStream(
    grpc::CallbackServerContext* context, const v1::GenerateRequest* request) {
  auto answer = std::make_shared<StreamAnswer>(engine_, tokenizer_);
  auto* reactor = new StreamAnswer::Reactor(answer);
  answer->Bind(reactor);
  Submit(*context, *request, answer);
  return reactor;
}

grpc::ServerUnaryReactor* GrpcService::Tokenize(grpc::CallbackServerContext* context,
                                                const v1::TokenizeRequest* request,
                                                v1::TokenizeResponse* response) {
  const bool special = !request->has_add_special_tokens() || request->add_special_tokens();
  const auto ids = tokenizer_->Encode(request->text(), special);
  if (!ids.ok()) return FinishNow(context, ToWire(ids.status()));
  for (int32_t id : *ids) {
    response->add_token_ids(id);
    response->add_tokens(tokenizer_->TokenOf(id));
  }
  return FinishNow(context, grpc::Status::OK);
}

grpc::ServerUnaryReactor* GrpcService::Detokenize(grpc::CallbackServerContext* context,
                                                  const v1::DetokenizeRequest* request,
                                                  v1::DetokenizeResponse* response) {
  for (int i = 0; i < request->token_ids_size(); ++i) {
    const int32_t id = request->token_ids(i);
    if (id >= 0 && id < tokenizer_->vocab_size()) continue;
    return FinishNow(context, {grpc::StatusCode::INVALID_ARGUMENT,
                               absl::StrCat("token_ids[", i, "] is ", id, "; token ids are 0 to ",
                                            tokenizer_->vocab_size() - 1)});
  }
  const bool skip = !request->has_skip_special_tokens() || request->skip_special_tokens();
  response->set_text(tokenizer_->Decode(request->token_ids(), skip));
  return FinishNow(context, grpc::Status::OK);
}

grpc::ServerUnaryReactor* GrpcService::GetModelInfo(grpc::CallbackServerContext* context,
                                                    const v1::GetModelInfoRequest* request,
                                                    v1::GetModelInfoResponse* response) {
  *response = info_;
  return FinishNow(context, grpc::Status::OK);
}

}  // namespace cohort::serving
