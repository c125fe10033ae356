#include "serving/wire.h"

namespace cohort::serving {
namespace {

void ToWire(const TokenScore& score, const runtime::Tokenizer& tokenizer, v1::TokenLogprob& wire) {
  wire.set_token_id(score.token);
  wire.set_token(tokenizer.TokenOf(score.token));
  wire.set_logprob(score.logprob);
  wire.set_rank(score.rank);
}

v1::FinishReason ToWire(FinishReason reason) {
  switch (reason) {
    case FinishReason::kNone:
      return v1::FINISH_REASON_UNSPECIFIED;
    case FinishReason::kLength:
      return v1::FINISH_REASON_LENGTH;
    case FinishReason::kStop:
      return v1::FINISH_REASON_STOP;
    case FinishReason::kAborted:
      return v1::FINISH_REASON_ABORTED;
  }
  return v1::FINISH_REASON_UNSPECIFIED;
}

// The completion of this index, made where there is none.
template <typename Response>
v1::Completion& CompletionOf(Response& response, int32_t index) {
  for (v1::Completion& completion : *response.mutable_completions()) {
    if (completion.index() == index) return completion;
  }
  v1::Completion& completion = *response.add_completions();
  completion.set_index(index);
  return completion;
}

}  // namespace

void ToWire(const TokenScores& scores, const runtime::Tokenizer& tokenizer, v1::TokenLogprobs& wire) {
  ToWire(scores.chosen, tokenizer, *wire.mutable_chosen());
  for (const TokenScore& score : scores.top) ToWire(score, tokenizer, *wire.add_top());
}

void ToWire(const TokenUsage& usage, v1::Usage& wire) {
  wire.set_prompt_tokens(usage.prompt_tokens);
  wire.set_completion_tokens(usage.completion_tokens);
}

// The codes of the two libraries are the same numbers.
grpc::Status ToWire(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  return {static_cast<grpc::StatusCode>(status.code()), std::string(status.message())};
}

absl::Status FromWire(const grpc::Status& status) {
  return {static_cast<absl::StatusCode>(status.error_code()), status.error_message()};
}

void MergeDelta(const Delta& delta, const runtime::Tokenizer& tokenizer,
                v1::GenerateStreamResponse& pending) {
  v1::Completion& completion = CompletionOf(pending, delta.index);
  completion.mutable_text()->append(delta.text);
  completion.mutable_token_ids()->Add(delta.token_ids.begin(), delta.token_ids.end());
  for (const TokenScores& scores : delta.logprobs) ToWire(scores, tokenizer, *completion.add_logprobs());
  if (delta.finish_reason == FinishReason::kNone) return;
  completion.set_finish_reason(ToWire(delta.finish_reason));
  completion.set_matched_stop(delta.matched_stop);
}

void MergeResponse(const v1::GenerateStreamResponse& part, v1::GenerateResponse& whole) {
  if (!part.request_id().empty()) whole.set_request_id(part.request_id());
  if (part.has_prompt()) whole.mutable_prompt()->MergeFrom(part.prompt());
  if (part.has_usage()) *whole.mutable_usage() = part.usage();
  for (const v1::Completion& delta : part.completions()) {
    v1::Completion& completion = CompletionOf(whole, delta.index());
    completion.mutable_text()->append(delta.text());
    completion.mutable_token_ids()->MergeFrom(delta.token_ids());
    completion.mutable_logprobs()->MergeFrom(delta.logprobs());
    if (delta.finish_reason() == v1::FINISH_REASON_UNSPECIFIED) continue;
    completion.set_finish_reason(delta.finish_reason());
    completion.set_matched_stop(delta.matched_stop());
  }
}

}  // namespace cohort::serving
