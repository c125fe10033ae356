#include "serving/validate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>

#include "tests/serving/test_tokenizer.h"

namespace cohort::serving {
namespace {

using ::testing::HasSubstr;

const RequestLimits kLimits{kByteVocabulary, 64};

absl::StatusOr<GenerationRequest> Validate(const v1::GenerateRequest& request, bool bos = true) {
  return ValidateRequest(request, *ByteTokenizer(bos), kLimits, 77);
}

v1::GenerateRequest Text(const std::string& text) {
  v1::GenerateRequest request;
  request.set_text(text);
  return request;
}

TEST(ValidateTest, DefaultsAreTheContracts) {
  const auto request = Validate(Text("abc"));
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->prompt, (std::vector<int32_t>{kBos, 'a', 'b', 'c'}));
  EXPECT_EQ(request->n, 1);
  EXPECT_EQ(request->sampling.temperature, 1);
  EXPECT_EQ(request->sampling.top_k, 0);
  EXPECT_EQ(request->sampling.top_p, 1);
  EXPECT_EQ(request->sampling.seed, 77u);
  EXPECT_EQ(request->stopping.max_tokens, 60);  // what the context leaves
  EXPECT_EQ(request->stopping.min_tokens, 0);
  EXPECT_FALSE(request->logprobs || request->prompt_logprobs || request->echo);
  EXPECT_TRUE(request->skip_special_tokens);
}

TEST(ValidateTest, ZeroCanBeSaid) {
  v1::GenerateRequest request = Text("abc");
  request.mutable_sampling()->set_temperature(0);
  request.mutable_sampling()->set_seed(0);
  request.mutable_response()->set_logprobs(0);
  const auto valid = Validate(request);
  ASSERT_TRUE(valid.ok());
  EXPECT_EQ(valid->sampling.temperature, 0);
  EXPECT_EQ(valid->sampling.seed, 0u);
  EXPECT_EQ(valid->logprobs, 0);
}

TEST(ValidateTest, EmptyTextBeginsFromBos) {
  const auto request = Validate(Text(""));
  ASSERT_TRUE(request.ok());
  EXPECT_EQ(request->prompt, std::vector<int32_t>{kBos});
  const auto none = Validate(Text(""), /*bos=*/false);
  EXPECT_EQ(none.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(none.status().message()), HasSubstr("no token"));
}

TEST(ValidateTest, EchoIsThePromptsText) {
  v1::GenerateRequest request = Text("abc");
  request.mutable_response()->set_echo(true);
  EXPECT_EQ(Validate(request)->echo, "abc");
  for (int32_t id : {kBos, int32_t{'x'}, int32_t{'y'}}) request.mutable_token_ids()->add_ids(id);
  EXPECT_EQ(Validate(request)->echo, "xy");
  request.mutable_response()->set_skip_special_tokens(false);
  EXPECT_EQ(Validate(request)->echo, "<s>xy");
}

TEST(ValidateTest, MaxTokensIsClampedToTheContext) {
  v1::GenerateRequest request = Text("abc");
  request.mutable_stopping()->set_max_tokens(1000000);
  EXPECT_EQ(Validate(request)->stopping.max_tokens, 60);
  request.mutable_stopping()->set_max_tokens(5);
  EXPECT_EQ(Validate(request)->stopping.max_tokens, 5);
}

struct Bad {
  const char* name;
  const char* message;  // names the field
  std::function<void(v1::GenerateRequest&)> change;
};

const float kNan = std::nanf(""), kInf = std::numeric_limits<float>::infinity();

const std::vector<Bad>& BadRequests() {
  static const std::vector<Bad> bad = {
      {"no prompt", "prompt", [](auto& r) { r.clear_prompt(); }},
      {"no ids", "token_ids", [](auto& r) { r.mutable_token_ids(); }},
      {"negative id", "token_ids[1] is -1",
       [](auto& r) { r.mutable_token_ids()->add_ids(1), r.mutable_token_ids()->add_ids(-1); }},
      {"id too large", "token_ids[0] is 258", [](auto& r) { r.mutable_token_ids()->add_ids(258); }},
      {"long prompt", "64 tokens", [](auto& r) { r.set_text(std::string(63, 'a')); }},
      {"huge prompt", "bytes", [](auto& r) { r.set_text(std::string(1 << 20, 'a')); }},
      {"long id", "request_id", [](auto& r) { r.set_request_id(std::string(1000, 'i')); }},
      {"negative temperature", "sampling.temperature",
       [](auto& r) { r.mutable_sampling()->set_temperature(-1); }},
      {"NaN temperature", "sampling.temperature",
       [](auto& r) { r.mutable_sampling()->set_temperature(kNan); }},
      {"infinite temperature", "sampling.temperature",
       [](auto& r) { r.mutable_sampling()->set_temperature(kInf); }},
      {"negative top_k", "sampling.top_k", [](auto& r) { r.mutable_sampling()->set_top_k(-1); }},
      {"zero top_p", "sampling.top_p", [](auto& r) { r.mutable_sampling()->set_top_p(0); }},
      {"top_p above 1", "sampling.top_p", [](auto& r) { r.mutable_sampling()->set_top_p(1.5f); }},
      {"NaN top_p", "sampling.top_p", [](auto& r) { r.mutable_sampling()->set_top_p(kNan); }},
      {"min_p", "sampling.min_p", [](auto& r) { r.mutable_sampling()->set_min_p(-0.1f); }},
      {"NaN min_p", "sampling.min_p", [](auto& r) { r.mutable_sampling()->set_min_p(kNan); }},
      {"repetition", "sampling.repetition_penalty",
       [](auto& r) { r.mutable_sampling()->set_repetition_penalty(0); }},
      {"infinite repetition", "sampling.repetition_penalty",
       [](auto& r) { r.mutable_sampling()->set_repetition_penalty(kInf); }},
      {"presence", "sampling.presence_penalty",
       [](auto& r) { r.mutable_sampling()->set_presence_penalty(3); }},
      {"frequency", "sampling.frequency_penalty",
       [](auto& r) { r.mutable_sampling()->set_frequency_penalty(kNan); }},
      {"n 0", "sampling.n", [](auto& r) { r.mutable_sampling()->set_n(0); }},
      {"n 65", "sampling.n", [](auto& r) { r.mutable_sampling()->set_n(65); }},
      {"bias id", "sampling.logit_bias",
       [](auto& r) { (*r.mutable_sampling()->mutable_logit_bias())[999] = 1; }},
      {"bias NaN", "sampling.logit_bias",
       [](auto& r) { (*r.mutable_sampling()->mutable_logit_bias())[9] = kNan; }},
      {"max_tokens 0", "stopping.max_tokens", [](auto& r) { r.mutable_stopping()->set_max_tokens(0); }},
      {"min_tokens", "stopping.min_tokens", [](auto& r) { r.mutable_stopping()->set_min_tokens(-1); }},
      {"min above max", "stopping.min_tokens",
       [](auto& r) { r.mutable_stopping()->set_max_tokens(3), r.mutable_stopping()->set_min_tokens(4); }},
      {"empty stop", "stopping.stop", [](auto& r) { r.mutable_stopping()->add_stop(); }},
      {"17 stops", "stopping.stop",
       [](auto& r) {
         for (int i = 0; i < 17; ++i) r.mutable_stopping()->add_stop(std::string(2, 's'));
       }},
      {"stop id", "stopping.stop_token_ids", [](auto& r) { r.mutable_stopping()->add_stop_token_ids(-5); }},
      {"logprobs", "response.logprobs", [](auto& r) { r.mutable_response()->set_logprobs(21); }},
      {"prompt_logprobs", "response.prompt_logprobs",
       [](auto& r) { r.mutable_response()->set_prompt_logprobs(-1); }},
  };
  return bad;
}

TEST(ValidateTest, MalformedRequestsNameTheirField) {
  for (const Bad& bad : BadRequests()) {
    v1::GenerateRequest request = Text("abc");
    bad.change(request);
    const auto valid = Validate(request);
    EXPECT_EQ(valid.status().code(), absl::StatusCode::kInvalidArgument) << bad.name;
    EXPECT_THAT(std::string(valid.status().message()), HasSubstr(bad.message)) << bad.name;
  }
}

}  // namespace
}  // namespace cohort::serving
