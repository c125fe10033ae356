// A request under way and its completions, as the engine's thread keeps them.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/time/time.h"
#include "serving/completion_text.h"
#include "serving/generation.h"

namespace cohort::serving {

struct ActiveRequest;

// One completion.
struct Sequence {
  Sequence(int64_t id, ActiveRequest& request, std::vector<int32_t> prompt, CompletionText text)
      : id(id), request(request), tokens(std::move(prompt)), text(std::move(text)) {}

  int64_t id;  // order of arrival over all sequences; never changes, so a preempted one keeps its place
  ActiveRequest& request;
  int32_t index = 0;            // among the request's completions
  std::vector<int32_t> tokens;  // prompt, then output
  CompletionText text;
  // Of the rank that runs it; pages is empty while it waits.
  int32_t rank = 0;
  int32_t cached = 0;  // leading tokens whose keys and values are in the pages
  std::vector<int32_t> pages;
  bool finished = false;
  absl::Time last_token;
};

struct ActiveRequest {
  uint64_t handle = 0;
  GenerationRequest spec;
  std::shared_ptr<GenerationSink> sink;
  std::vector<std::unique_ptr<Sequence>> sequences;
  int32_t unfinished = 0;
  bool begun = false;          // some sequence was admitted
  bool queued = true;          // counts towards the queue's limits
  bool prompt_cached = false;  // its first sequence computed the prompt: the others may take over its pages
  bool prompt_sent = false;
  std::vector<std::optional<TokenScores>> prompt_scores;  // of prompt tokens but the first, where asked for
  absl::Time submitted;

  int32_t prompt_tokens() const { return static_cast<int32_t>(spec.prompt.size()); }
  TokenUsage usage() const {
    TokenUsage usage{prompt_tokens(), 0};
    for (const auto& sequence : sequences) usage.completion_tokens += sequence->text.tokens();
    return usage;
  }
};

}  // namespace cohort::serving
