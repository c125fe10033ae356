#include "serving/validate.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "comm/check.h"
#include "serving/policy.h"

namespace cohort::serving {
namespace {

template <typename... Args>
absl::Status Wrong(const Args&... args) {
  return absl::InvalidArgumentError(absl::StrCat(args...));
}

// NaN is outside of everything.
absl::Status CheckRange(const char* field, double value, double least, double most) {
  if (value >= least && value <= most) return absl::OkStatus();
  return Wrong(field, " is ", value, "; it must be in [", least, ", ", most, "]");
}

absl::Status CheckIds(const char* field, absl::Span<const int32_t> ids, int32_t vocabulary_size) {
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] >= 0 && ids[i] < vocabulary_size) continue;
    return Wrong(field, "[", i, "] is ", ids[i], "; token ids of this model are 0 to ", vocabulary_size - 1);
  }
  return absl::OkStatus();
}

absl::Status CheckPrompt(const v1::GenerateRequest& request, const runtime::Tokenizer& tokenizer,
                         const RequestLimits& limits, GenerationRequest& result) {
  switch (request.prompt_case()) {
    case v1::GenerateRequest::kText: {
      // Refused before the work of encoding it.
      if (request.text().size() > static_cast<size_t>(limits.capacity) * policy::kMaxBytesPerToken) {
        return Wrong("text has ", request.text().size(), " bytes; no prompt of so many has fewer than ",
                     limits.capacity, " tokens, which this server can hold");
      }
      auto ids = tokenizer.Encode(request.text(), /*add_special_tokens=*/true);
      if (!ids.ok()) return Wrong("text: ", ids.status().message());
      result.prompt = *std::move(ids);
      if (result.prompt.empty() && tokenizer.bos_id()) result.prompt.push_back(*tokenizer.bos_id());
      if (result.prompt.empty()) {
        return Wrong(
            "text encodes to no token and the model has no token to begin with; give at least one token");
      }
      break;
    }
    case v1::GenerateRequest::kTokenIds:
      result.prompt.assign(request.token_ids().ids().begin(), request.token_ids().ids().end());
      if (result.prompt.empty()) return Wrong("token_ids is empty; give at least one token");
      break;
    case v1::GenerateRequest::PROMPT_NOT_SET:
      return Wrong("prompt: neither text nor token_ids is set");
  }
  COHORT_RETURN_IF_ERROR(CheckIds("token_ids", result.prompt, limits.vocabulary_size));
  if (result.prompt.size() >= static_cast<size_t>(limits.capacity)) {
    return Wrong("the prompt has ", result.prompt.size(), " tokens; the context holds ", limits.capacity,
                 ", of which at least one must be left to generate");
  }
  return absl::OkStatus();
}

absl::Status CheckSampling(const v1::SamplingParameters& wire, int32_t vocabulary_size,
                           SamplingParams& params, int32_t& n) {
  if (wire.has_temperature()) {
    params.temperature = wire.temperature();
    if (!(params.temperature >= 0) || std::isinf(params.temperature)) {
      return Wrong("sampling.temperature is ", params.temperature, "; it must be finite and at least 0");
    }
  }
  if (wire.has_top_k()) {
    params.top_k = wire.top_k();
    if (params.top_k < 0)
      return Wrong("sampling.top_k is ", params.top_k, "; it must be at least 0 (0: all)");
  }
  if (wire.has_top_p()) {
    params.top_p = wire.top_p();
    if (!(params.top_p > 0 && params.top_p <= 1)) {
      return Wrong("sampling.top_p is ", params.top_p, "; it must be above 0 and at most 1");
    }
  }
  if (wire.has_min_p()) {
    params.min_p = wire.min_p();
    COHORT_RETURN_IF_ERROR(CheckRange("sampling.min_p", params.min_p, 0, 1));
  }
  if (wire.has_repetition_penalty()) {
    params.repetition_penalty = wire.repetition_penalty();
    if (!(params.repetition_penalty > 0) || std::isinf(params.repetition_penalty)) {
      return Wrong("sampling.repetition_penalty is ", params.repetition_penalty,
                   "; it must be finite and above 0");
    }
  }
  if (wire.has_presence_penalty()) {
    params.presence_penalty = wire.presence_penalty();
    COHORT_RETURN_IF_ERROR(CheckRange("sampling.presence_penalty", params.presence_penalty,
                                      -policy::kMaxPenalty, policy::kMaxPenalty));
  }
  if (wire.has_frequency_penalty()) {
    params.frequency_penalty = wire.frequency_penalty();
    COHORT_RETURN_IF_ERROR(CheckRange("sampling.frequency_penalty", params.frequency_penalty,
                                      -policy::kMaxPenalty, policy::kMaxPenalty));
  }
  if (wire.has_seed()) params.seed = wire.seed();
  if (wire.has_n()) n = wire.n();
  COHORT_RETURN_IF_ERROR(CheckRange("sampling.n", n, 1, policy::kMaxCompletions));
  if (wire.logit_bias_size() > policy::kMaxLogitBiases) {
    return Wrong("sampling.logit_bias has ", wire.logit_bias_size(), " entries, at most ",
                 policy::kMaxLogitBiases, " are allowed");
  }
  for (const auto& [token, bias] : wire.logit_bias()) {
    COHORT_RETURN_IF_ERROR(CheckIds("sampling.logit_bias", {&token, 1}, vocabulary_size));
    if (!std::isfinite(bias)) return Wrong("sampling.logit_bias of token ", token, " is not finite");
    params.logit_bias[token] = bias;
  }
  return absl::OkStatus();
}

absl::Status CheckStopping(const v1::StoppingCriteria& wire, const RequestLimits& limits, int32_t room,
                           StoppingParams& params) {
  params.max_tokens = room;
  if (wire.has_max_tokens()) {
    if (wire.max_tokens() < 1) {
      return Wrong("stopping.max_tokens is ", wire.max_tokens(), "; it must be at least 1");
    }
    params.max_tokens = std::min(wire.max_tokens(), room);
  }
  if (wire.has_min_tokens()) {
    params.min_tokens = wire.min_tokens();
    if (params.min_tokens < 0) {
      return Wrong("stopping.min_tokens is ", params.min_tokens, "; it must be at least 0");
    }
    if (params.min_tokens > params.max_tokens) {
      return Wrong("stopping.min_tokens is ", params.min_tokens, ", but at most ", params.max_tokens,
                   " tokens can be generated (max_tokens, or what the context leaves)");
    }
  }
  if (wire.stop_size() > policy::kMaxStopStrings) {
    return Wrong("stopping.stop has ", wire.stop_size(), " strings, at most ", policy::kMaxStopStrings,
                 " are allowed");
  }
  for (const std::string& stop : wire.stop()) {
    if (stop.empty() || stop.size() > policy::kMaxStopBytes) {
      return Wrong("stopping.stop has a string of ", stop.size(), " bytes; it must be 1 to ",
                   policy::kMaxStopBytes);
    }
    params.stop.push_back(stop);
  }
  if (wire.stop_token_ids_size() > policy::kMaxStopIds) {
    return Wrong("stopping.stop_token_ids has ", wire.stop_token_ids_size(), " ids, at most ",
                 policy::kMaxStopIds, " are allowed");
  }
  params.stop_token_ids.assign(wire.stop_token_ids().begin(), wire.stop_token_ids().end());
  COHORT_RETURN_IF_ERROR(CheckIds("stopping.stop_token_ids", params.stop_token_ids, limits.vocabulary_size));
  params.ignore_eos = wire.ignore_eos();
  params.include_stop = wire.include_stop();
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<GenerationRequest> ValidateRequest(const v1::GenerateRequest& request,
                                                  const runtime::Tokenizer& tokenizer,
                                                  const RequestLimits& limits, uint64_t seed) {
  GenerationRequest result;
  if (request.request_id().size() > policy::kMaxRequestIdBytes) {
    return Wrong("request_id has ", request.request_id().size(), " bytes, at most ",
                 policy::kMaxRequestIdBytes, " are allowed");
  }
  result.request_id = request.request_id();
  COHORT_RETURN_IF_ERROR(CheckPrompt(request, tokenizer, limits, result));
  result.sampling.seed = seed;
  COHORT_RETURN_IF_ERROR(
      CheckSampling(request.sampling(), limits.vocabulary_size, result.sampling, result.n));
  const int32_t room = limits.capacity - static_cast<int32_t>(result.prompt.size());
  COHORT_RETURN_IF_ERROR(CheckStopping(request.stopping(), limits, room, result.stopping));
  const v1::ResponseOptions& response = request.response();
  if (response.has_logprobs()) {
    COHORT_RETURN_IF_ERROR(CheckRange("response.logprobs", response.logprobs(), 0, policy::kMaxLogprobs));
    result.logprobs = response.logprobs();
  }
  if (response.has_prompt_logprobs()) {
    COHORT_RETURN_IF_ERROR(
        CheckRange("response.prompt_logprobs", response.prompt_logprobs(), 0, policy::kMaxLogprobs));
    result.prompt_logprobs = response.prompt_logprobs();
  }
  if (response.has_skip_special_tokens()) result.skip_special_tokens = response.skip_special_tokens();
  if (response.echo()) {
    result.echo = request.prompt_case() == v1::GenerateRequest::kText
                      ? request.text()
                      : tokenizer.Decode(result.prompt, result.skip_special_tokens);
  }
  return result;
}

}  // namespace cohort::serving
