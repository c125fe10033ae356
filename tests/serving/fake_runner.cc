#include "tests/serving/fake_runner.h"

#include <chrono>
#include <limits>

#include "comm/check.h"
#include "runtime/random/philox.h"
#include "serving/decoder_runner.h"
#include "serving/sampler.h"

namespace cohort::serving {

std::vector<float> HashModel(absl::Span<const int32_t> history) {
  uint64_t hash = 1469598103934665603u;
  for (int32_t token : history) hash = (hash ^ static_cast<uint64_t>(token + 1)) * 1099511628211u;
  std::vector<float> logits(kByteVocabulary, -std::numeric_limits<float>::infinity());
  for (int token = 32; token < 127; ++token) {
    const auto bits = Philox4x32({static_cast<uint32_t>(token), 0, 0, 0},
                                 {static_cast<uint32_t>(hash), static_cast<uint32_t>(hash >> 32)});
    logits[token] = 4 * runtime::UniformFloat(bits[0]);
  }
  logits[kEos] = hash % 61 == 0 ? 9.0f : -4.0f;
  return logits;
}

FakeModel Recite(std::string text, size_t prompt) {
  return [text = std::move(text), prompt](absl::Span<const int32_t> history) {
    std::vector<float> logits(kByteVocabulary, 0);
    const size_t place = history.size() - prompt;
    logits[place < text.size() ? static_cast<uint8_t>(text[place]) : kEos] = 20;
    return logits;
  };
}

void FakeControl::Allow(int steps) {
  std::lock_guard lock(mutex_);
  allowed_ = steps;
  changed_.notify_all();
}
void FakeControl::FreeRun() { Allow(-1); }
void FakeControl::FailAfter(int steps) {
  std::lock_guard lock(mutex_);
  until_failure_ = steps;
}
int FakeControl::steps() const {
  std::lock_guard lock(mutex_);
  return steps_;
}
int FakeControl::idles() const {
  std::lock_guard lock(mutex_);
  return idles_;
}
bool FakeControl::stopped() const {
  std::lock_guard lock(mutex_);
  return stopped_;
}
bool FakeControl::WaitForSteps(int steps) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, std::chrono::seconds(10), [&] { return steps_ >= steps; });
}

bool FakeControl::Enter() {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, std::chrono::seconds(20), [&] { return allowed_ != 0; });
  if (allowed_ > 0) --allowed_;
  if (until_failure_ == 0) return false;
  if (until_failure_ > 0) --until_failure_;
  ++steps_;
  changed_.notify_all();
  return true;
}

FakeRunner::FakeRunner(RunnerInfo info, FakeModel model, std::shared_ptr<FakeControl> control)
    : info_(info),
      model_(std::move(model)),
      control_(std::move(control)),
      memory_(info.ranks, std::vector<int32_t>(static_cast<size_t>(info.pages) * info.page_size, -1)) {}

absl::StatusOr<StepResult> FakeRunner::Run(const Step& step) {
  if (control_ != nullptr && !control_->Enter()) return absl::UnavailableError("rank 1 was lost");
  StepResult result;
  for (int rank = 0; rank < info_.ranks; ++rank) result.ranks.push_back(RunRank(step.ranks[rank], rank));
  return result;
}

absl::Status FakeRunner::Idle() {
  if (control_ != nullptr) {
    std::lock_guard lock(control_->mutex_);
    ++control_->idles_;
  }
  return absl::OkStatus();
}

void FakeRunner::Stop() {
  if (control_ == nullptr) return;
  std::lock_guard lock(control_->mutex_);
  control_->stopped_ = true;
}

RankResult FakeRunner::RunRank(const RankStep& step, int rank) {
  std::vector<int32_t>& memory = memory_[rank];
  for (size_t i = 0; i < step.tokens.size(); ++i) memory.at(step.slots[i]) = step.tokens[i];
  RankResult result;
  Sampler sampler;
  for (const WantedRow& row : step.rows) {
    size_t s = 0;
    while (step.query_offsets[s + 1] <= row.row) ++s;
    const int32_t position = step.positions[row.row];
    COHORT_CHECK(position < step.context_lengths[s], "a position beyond its context");
    std::vector<int32_t> history;
    for (int32_t j = 0; j <= position; ++j) {
      history.push_back(
          memory.at(step.page_table[s].at(j / info_.page_size) * info_.page_size + j % info_.page_size));
    }
    result.rows.push_back(EvaluateRow(model_(history), row, sampler));
  }
  return result;
}

std::vector<int32_t> GenerateAlone(const FakeModel& model, std::vector<int32_t> prompt, int tokens,
                                   const SamplingParams& params, uint64_t completion) {
  Sampler sampler;
  std::vector<int32_t> output, history = prompt;
  while (static_cast<int>(output.size()) < tokens) {
    const auto token =
        sampler.Sample(model(history), {&params, prompt, output, {}, output.size(), completion});
    COHORT_CHECK(token.ok(), "no token");
    output.push_back(*token);
    history.push_back(*token);
    if (*token == kEos) break;
  }
  return output;
}

}  // namespace cohort::serving
