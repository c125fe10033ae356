#include "serving/completion_text.h"

#include <algorithm>
#include <utility>

#include "serving/policy.h"

namespace cohort::serving {
namespace {

bool Contains(absl::Span<const int32_t> ids, int32_t id) {
  return std::find(ids.begin(), ids.end(), id) != ids.end();
}

}  // namespace

CompletionText::CompletionText(std::shared_ptr<const runtime::Tokenizer> tokenizer,
                               const GenerationRequest& request, int32_t index, int32_t longest)
    : tokenizer_(tokenizer),
      request_(request),
      index_(index),
      longest_(std::min(longest, request.stopping.max_tokens)),
      end_ids_(request.stopping.stop_token_ids),
      decoder_(tokenizer, request.skip_special_tokens),
      matcher_(request.stopping.stop, request.stopping.include_stop) {
  if (!request.stopping.ignore_eos) {
    end_ids_.insert(end_ids_.end(), tokenizer_->eos_ids().begin(), tokenizer_->eos_ids().end());
  }
  ContinuePrompt();
}

// The output goes on from the prompt, so its first token is not the first of a text: SentencePiece-style decoders drop
// the space before that one. A prompt token with text of its own brings the decoder past the beginning.
void CompletionText::ContinuePrompt() {
  const std::vector<int32_t>& prompt = request_.prompt;
  const size_t first = prompt.size() - std::min(prompt.size(), policy::kPromptTokensDecoded);
  for (size_t i = prompt.size(); i-- > first;) {
    runtime::StreamDecoder probe(tokenizer_, request_.skip_special_tokens);
    if (!probe.Push(prompt[i]).empty() && probe.Finish().empty()) {
      decoder_.Push(prompt[i]);
      return;
    }
  }
}

absl::Span<const int32_t> CompletionText::Banned() const {
  if (count_ >= request_.stopping.min_tokens) return {};
  return end_ids_;
}

Delta CompletionText::NewDelta() {
  Delta delta;
  delta.index = index_;
  if (request_.echo && !std::exchange(echoed_, true)) delta.text = *request_.echo;
  return delta;
}

Delta CompletionText::Accept(int32_t token, std::optional<TokenScores> scores) {
  Delta delta = NewDelta();
  delta.token_ids.push_back(token);
  if (scores) delta.logprobs.push_back(*std::move(scores));
  ++count_;
  const StoppingParams& stopping = request_.stopping;
  const bool armed = count_ >= stopping.min_tokens;
  if (Contains(end_ids_, token)) {
    // An id that ends the completion is like a stop string: in its text only if asked for.
    if (stopping.include_stop) delta.text += matcher_.Add(decoder_.Push(token), false).text;
    delta.finish_reason = FinishReason::kStop;
    if (Contains(stopping.stop_token_ids, token)) delta.matched_stop = tokenizer_->TokenOf(token);
    Flush(delta, false);
    return delta;
  }
  StopMatcher::Result result = matcher_.Add(decoder_.Push(token), armed);
  delta.text += result.text;
  if (!result.matched.empty()) {
    delta.finish_reason = FinishReason::kStop;
    delta.matched_stop = std::move(result.matched);
  } else if (count_ >= longest_) {
    delta.finish_reason = FinishReason::kLength;
    Flush(delta, armed);
  }
  return delta;
}

Delta CompletionText::Abort() {
  Delta delta = NewDelta();
  delta.finish_reason = FinishReason::kAborted;
  Flush(delta, false);
  return delta;
}

void CompletionText::Flush(Delta& delta, bool armed) {
  StopMatcher::Result result = matcher_.Add(decoder_.Finish(), armed);
  delta.text += result.text;
  if (result.matched.empty()) {
    delta.text += matcher_.Finish();
  } else {
    delta.finish_reason = FinishReason::kStop;
    delta.matched_stop = std::move(result.matched);
  }
}

}  // namespace cohort::serving
