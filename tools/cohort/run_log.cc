#include "tools/cohort/run_log.h"

#include <algorithm>
#include <cstdio>
#include <numeric>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "comm/check.h"
#include "runtime/config/policy.h"
#include "runtime/metrics/chrome_trace.h"

namespace cohort::tools {
namespace {

// Steps before a trace begins: the first ones allocate and are not like the others.
constexpr int64_t kTraceAfter = 3;

// The busiest expert's load as a multiple of the mean, over all blocks: 1 is perfect balance.
double Imbalance(const std::vector<std::vector<int64_t>>& load) {
  double worst = 0;
  for (const std::vector<int64_t>& block : load) {
    const double mean = static_cast<double>(std::accumulate(block.begin(), block.end(), int64_t{0})) /
                        static_cast<double>(std::max<size_t>(1, block.size()));
    if (mean > 0)
      worst = std::max(worst, static_cast<double>(*std::max_element(block.begin(), block.end())) / mean);
  }
  return worst;
}

}  // namespace

absl::StatusOr<std::unique_ptr<RunLog>> RunLog::Open(const v1::TrainConfig& config, const Facts& facts) {
  std::unique_ptr<RunLog> log(new RunLog(config, facts));
  if (facts.rank != 0) return log;
  COHORT_ASSIGN_OR_RETURN(
      auto metrics, runtime::JsonLinesWriter::Open(config.output() + "/metrics.jsonl", facts.resumed_step));
  log->metrics_ = std::make_unique<runtime::JsonLinesWriter>(std::move(metrics));
  if (config.metrics().tensorboard()) {
    COHORT_ASSIGN_OR_RETURN(auto board, runtime::TensorBoardWriter::Create(config.output() + "/tensorboard"));
    log->board_ = std::make_unique<runtime::TensorBoardWriter>(std::move(board));
  }
  const bool has_end = config.train().steps() < runtime::config_policy::kUnlimitedSteps;
  log->progress_ = std::make_unique<runtime::Progress>(
      runtime::ProgressOptions{.steps = has_end ? config.train().steps() : 0,
                               .seconds_limit = config.train().minutes() * 60,
                               .flops_per_token = facts.flops_per_token,
                               .peak_flops = facts.peak_flops,
                               .log_every = config.metrics().log_every()},
      stderr);
  return log;
}

runtime::StepMetrics MetricsOf(const runtime::StepReport& report) {
  return {.step = report.step,
          .loss = report.loss,
          .tokens = report.tokens,
          .seconds = report.seconds,
          .grad_norm = report.grad_norm,
          .lr = report.lr,
          .aux_loss = report.aux_loss,
          .expert_load = *report.expert_load,
          .dropped = report.dropped};
}

void RunLog::Unwritten(const runtime::StepMetrics& row) {
  if (metrics_ != nullptr && row.step == facts_.resumed_step && metrics_->resumed_at() == row.step - 1) {
    Report(metrics_->Add(ToJson(row)));
  }
}

void RunLog::Step(const runtime::StepReport& report) {
  Trace(report.step);
  if (progress_ == nullptr) return;
  progress_->Update({.step = report.step,
                     .loss = report.loss,
                     .tokens = report.tokens,
                     .seconds = report.seconds,
                     .elapsed = absl::ToDoubleSeconds(absl::Now() - begin_)});
  const runtime::StepMetrics row = MetricsOf(report);
  Report(metrics_->Add(ToJson(row)));
  if (board_ == nullptr) return;
  std::vector<runtime::Scalar> scalars = {
      {"train/loss", report.loss}, {"train/grad_norm", report.grad_norm}, {"train/lr", report.lr}};
  if (report.seconds > 0) {
    scalars.push_back({"train/tokens_per_second", static_cast<double>(report.tokens) / report.seconds});
  }
  if (!row.expert_load.empty()) {
    scalars.push_back({"experts/aux_loss", report.aux_loss});
    scalars.push_back({"experts/busiest_over_mean", Imbalance(row.expert_load)});
    scalars.push_back({"experts/dropped", static_cast<double>(report.dropped)});
  }
  Report(board_->Add(report.step, scalars));
}

void RunLog::Evaluation(int64_t step, const runtime::Trainable::Evaluation& evaluation) {
  if (progress_ == nullptr) return;
  progress_->Log(absl::StrFormat("step %d  validation loss %.4f, %.3f bits per byte", step, evaluation.loss,
                                 evaluation.bits_per_byte));
  Report(metrics_->Add(ToJson(runtime::EvaluationMetrics{.step = step,
                                                         .loss = evaluation.loss,
                                                         .bits_per_byte = evaluation.bits_per_byte,
                                                         .tokens = evaluation.tokens})));
  if (board_ == nullptr) return;
  Report(board_->Add(
      step, {{"validation/loss", evaluation.loss}, {"validation/bits_per_byte", evaluation.bits_per_byte}}));
}

void RunLog::Note(const std::string& message) {
  if (progress_ != nullptr) progress_->Log(message);
}

void RunLog::End() {
  if (progress_ != nullptr) progress_->Finish();
}

void RunLog::Trace(int64_t step) {
  const int64_t steps = config_.metrics().trace_steps();
  if (steps == 0) return;
  const int64_t done = step - facts_.resumed_step;
  if (done == kTraceAfter) {
    trace_ = absl::StrFormat("%s/trace/rank-%05d.json", config_.output(), facts_.rank);
    Report(runtime::ChromeTrace::Start(trace_, facts_.rank));
  }
  if (done == kTraceAfter + steps || (step == config_.train().steps() && runtime::ChromeTrace::enabled())) {
    const absl::Status status = runtime::ChromeTrace::Stop();
    Report(status);
    if (status.ok()) Note(absl::StrCat("trace: ", trace_, " (open it in chrome://tracing or Perfetto)"));
  }
}

void RunLog::Report(const absl::Status& status) {
  if (status.ok() && lost_ > 0) {
    Note(absl::StrCat("metrics are written again; ", std::exchange(lost_, 0), " entries are missing"));
  }
  if (status.ok() || lost_++ > 0) return;
  if (progress_ != nullptr) progress_->Clear();
  std::fprintf(stderr, "cohort train: metrics cannot be written, training goes on: %s\n",
               std::string(status.message()).c_str());
}

}  // namespace cohort::tools
