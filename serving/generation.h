// One request and its answer inside the server: what the service hands to the engine and gets back.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace cohort::serving {

// How the next token is drawn. Meanings, ranges and defaults: SamplingParameters in inference.proto.
struct SamplingParams {
  float temperature = 1;
  int32_t top_k = 0;
  float top_p = 1;
  float min_p = 0;
  float repetition_penalty = 1;
  float presence_penalty = 0;
  float frequency_penalty = 0;
  uint64_t seed = 0;
  std::map<int32_t, float> logit_bias;

  bool penalizes() const {
    return repetition_penalty != 1 || presence_penalty != 0 || frequency_penalty != 0;
  }
};

struct StoppingParams {
  int32_t max_tokens = 0;  // resolved: at least 1
  int32_t min_tokens = 0;
  std::vector<std::string> stop;
  std::vector<int32_t> stop_token_ids;
  bool ignore_eos = false;
  bool include_stop = false;
};

// Checked and complete: validate.h makes it.
struct GenerationRequest {
  std::string request_id;
  std::vector<int32_t> prompt;      // at least one token
  std::optional<std::string> echo;  // text put before the output's
  int32_t n = 1;
  SamplingParams sampling;
  StoppingParams stopping;
  std::optional<int32_t> logprobs;         // likeliest tokens reported beside the chosen one
  std::optional<int32_t> prompt_logprobs;  // the same for prompt tokens but the first
  bool skip_special_tokens = true;
  absl::Time deadline = absl::InfiniteFuture();
};

struct TokenScore {
  int32_t token = 0;
  float logprob = 0;
  int32_t rank = 0;  // 1: the likeliest
};

// Of one position, under the model's own distribution.
struct TokenScores {
  TokenScore chosen;
  std::vector<TokenScore> top;  // likeliest first
};

enum class FinishReason : uint8_t { kNone, kLength, kStop, kAborted };

// What is new of one completion since its last delta.
struct Delta {
  int32_t index = 0;  // of the completion, 0 to n - 1
  std::string text;
  std::vector<int32_t> token_ids;
  std::vector<TokenScores> logprobs;  // one a token where asked for
  FinishReason finish_reason = FinishReason::kNone;
  std::string matched_stop;
};

struct TokenUsage {
  int32_t prompt_tokens = 0;
  int32_t completion_tokens = 0;
};

// Where one request's answer goes. Called from the engine's thread, one call at a time; must not block and
// must not call the engine. OnPrompt comes first and once, with one entry a prompt token but the first where
// prompt_logprobs were asked for. OnFinish is the last call and comes exactly once, also after a
// cancellation.
class GenerationSink {
 public:
  virtual ~GenerationSink() = default;
  virtual void OnPrompt(const std::vector<int32_t>& tokens, std::vector<TokenScores> logprobs) = 0;
  virtual void OnDelta(Delta delta) = 0;
  virtual void OnFinish(const absl::Status& status, const TokenUsage& usage) = 0;
};

}  // namespace cohort::serving
