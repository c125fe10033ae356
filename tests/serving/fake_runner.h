// A model runner whose model is a function of the tokens it finds in its pages.
#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <vector>

#include "absl/types/span.h"
#include "serving/model_runner.h"
#include "tests/serving/test_tokenizer.h"

namespace cohort::serving {

// Logits of the next token, given all before it.
using FakeModel = std::function<std::vector<float>(absl::Span<const int32_t>)>;

// Pseudo-random logits over printable ASCII; the end of sequence comes up now and then.
std::vector<float> HashModel(absl::Span<const int32_t> history);
// Always likeliest: the byte of `text` at the place that follows the prompt of `prompt` tokens; then </s>.
FakeModel Recite(std::string text, size_t prompt);

// What the test and the engine's thread share. Thread-safe.
class FakeControl {
 public:
  // The next `steps` steps may run, then the runner waits. Without a call it never waits.
  void Allow(int steps);
  void FreeRun();
  // The step after `steps` more fails.
  void FailAfter(int steps);
  int steps() const;
  int idles() const;
  bool stopped() const;
  // Waits until `steps` have run; false after some seconds.
  bool WaitForSteps(int steps);

 private:
  friend class FakeRunner;
  bool Enter();  // false: this step fails

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  int allowed_ = -1, until_failure_ = -1, steps_ = 0, idles_ = 0;
  bool stopped_ = false;
};

// Keeps tokens where a model keeps keys and values, and reads a sequence back through its page table: a page
// that is shared wrongly, overwritten or not filled shows in what is generated.
class FakeRunner final : public ModelRunner {
 public:
  explicit FakeRunner(RunnerInfo info, FakeModel model = HashModel,
                      std::shared_ptr<FakeControl> control = nullptr);
  RunnerInfo info() const override { return info_; }
  absl::StatusOr<StepResult> Run(const Step& step) override;
  absl::Status Idle() override;
  void Stop() override;
  RankResult RunRank(const RankStep& step, int rank);

 private:
  RunnerInfo info_;
  FakeModel model_;
  std::shared_ptr<FakeControl> control_;
  std::vector<std::vector<int32_t>> memory_;  // a rank's slots
};

// What the model says without any batching: greedy, or with `params`, until `tokens` or </s>.
std::vector<int32_t> GenerateAlone(const FakeModel& model, std::vector<int32_t> prompt, int tokens,
                                   const SamplingParams& params, uint64_t completion = 0);

}  // namespace cohort::serving
