// From the tokens of one completion to its text, and whether it is over.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/types/span.h"
#include "runtime/tokenizer/tokenizer.h"
#include "serving/generation.h"
#include "serving/stop.h"

namespace cohort::serving {

// Not thread-safe. `request` must outlive it.
class CompletionText {
 public:
  // `longest`: the most tokens that fit behind the prompt, at least 1.
  CompletionText(std::shared_ptr<const runtime::Tokenizer> tokenizer, const GenerationRequest& request,
                 int32_t index, int32_t longest);

  // Ids that must not be drawn next: what would end the completion before min_tokens.
  absl::Span<const int32_t> Banned() const;
  // The next token. A finish_reason in the answer means that it was the last.
  Delta Accept(int32_t token, std::optional<TokenScores> scores);
  // The server gives up: what was held back, and kAborted.
  Delta Abort();
  int32_t tokens() const { return count_; }

 private:
  void ContinuePrompt();
  Delta NewDelta();
  // All text that is held back, now that no token follows; a stop string may complete in it.
  void Flush(Delta& delta, bool armed);

  std::shared_ptr<const runtime::Tokenizer> tokenizer_;
  const GenerationRequest& request_;
  int32_t index_;
  int32_t longest_;
  int32_t count_ = 0;
  bool echoed_ = false;
  std::vector<int32_t> end_ids_;  // the model's end-of-sequence tokens, unless ignored, and stop_token_ids
  runtime::StreamDecoder decoder_;
  StopMatcher matcher_;
};

}  // namespace cohort::serving
