// A sink that keeps everything, for tests of the engine.
#pragma once

#include <chrono>
#include <condition_variable>
#include <map>
#include <mutex>
#include <optional>
#include <vector>

#include "serving/generation.h"

namespace cohort::serving {

// Thread-safe.
class CollectingSink final : public GenerationSink {
 public:
  struct Output {
    std::string text;
    std::vector<int32_t> tokens;
    std::vector<TokenScores> scores;
    FinishReason reason = FinishReason::kNone;
    std::string matched;
    int deltas = 0;
  };

  void OnPrompt(const std::vector<int32_t>& tokens, std::vector<TokenScores> logprobs) override {
    std::lock_guard lock(mutex_);
    ++prompts_;
    prompt_ = tokens;
    prompt_scores_ = std::move(logprobs);
  }
  void OnDelta(Delta delta) override {
    std::lock_guard lock(mutex_);
    Output& output = outputs_[delta.index];
    if (output.reason != FinishReason::kNone || status_ || prompts_ != 1) broken_ = true;
    output.text += delta.text;
    output.tokens.insert(output.tokens.end(), delta.token_ids.begin(), delta.token_ids.end());
    for (auto& scores : delta.logprobs) output.scores.push_back(scores);
    output.reason = delta.finish_reason;
    output.matched = delta.matched_stop;
    ++output.deltas;
    changed_.notify_all();
  }
  void OnFinish(const absl::Status& status, const TokenUsage& usage) override {
    std::lock_guard lock(mutex_);
    if (status_) broken_ = true;
    status_ = status;
    usage_ = usage;
    changed_.notify_all();
  }

  // Waits for the end; DEADLINE_EXCEEDED "test" where it does not come, INTERNAL "test" where calls
  // came in a wrong order.
  absl::Status Wait() {
    std::unique_lock lock(mutex_);
    if (!changed_.wait_for(lock, std::chrono::seconds(20), [&] { return status_.has_value(); })) {
      return absl::DeadlineExceededError("test: the request does not end");
    }
    if (broken_) return absl::InternalError("test: calls in a wrong order");
    return *status_;
  }
  bool WaitForTokens(size_t tokens) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(20),
                             [&] { return outputs_[0].tokens.size() >= tokens; });
  }
  bool finished() {
    std::lock_guard lock(mutex_);
    return status_.has_value();
  }
  // After Wait.
  const Output& output(int index = 0) { return outputs_[index]; }
  const std::vector<int32_t>& prompt() const { return prompt_; }
  const std::vector<TokenScores>& prompt_scores() const { return prompt_scores_; }
  const TokenUsage& usage() const { return usage_; }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<int, Output> outputs_;
  std::vector<int32_t> prompt_;
  std::vector<TokenScores> prompt_scores_;
  TokenUsage usage_;
  std::optional<absl::Status> status_;
  int prompts_ = 0;
  bool broken_ = false;
};

}  // namespace cohort::serving
