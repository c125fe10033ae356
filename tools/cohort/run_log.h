// What a training run writes while it runs: the progress line, metrics.jsonl, TensorBoard files, a trace.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "cohort/v1/config.pb.h"
#include "runtime/metrics/jsonl.h"
#include "runtime/metrics/progress.h"
#include "runtime/metrics/tensorboard.h"
#include "runtime/train/step_loop.h"

namespace cohort::tools {

runtime::StepMetrics MetricsOf(const runtime::StepReport& report);

// Rank 0 shows and writes; the other ranks record their part of a trace alone. A full disk is reported once
// and does not end the run. Not thread-safe.
class RunLog {
 public:
  struct Facts {
    int rank = 0;
    int64_t resumed_step = 0;    // 0: the run begins
    double peak_flops = 0;       // of all ranks
    double flops_per_token = 0;  // of the model, forward and backward
  };

  static absl::StatusOr<std::unique_ptr<RunLog>> Open(const v1::TrainConfig& config, const Facts& facts);

  void Step(const runtime::StepReport& report);
  // The step that this run goes on from, where the rank that was to write it died before: written where it is missing.
  void Unwritten(const runtime::StepMetrics& row);
  void Evaluation(int64_t step, const runtime::Trainable::Evaluation& evaluation);
  // A message on the terminal, of rank 0.
  void Note(const std::string& message);
  // Ends the live line.
  void End();

 private:
  RunLog(const v1::TrainConfig& config, const Facts& facts) : config_(config), facts_(facts) {}
  void Trace(int64_t step);
  void Report(const absl::Status& status);

  const v1::TrainConfig config_;
  const Facts facts_;
  std::unique_ptr<runtime::Progress> progress_;        // rank 0
  std::unique_ptr<runtime::JsonLinesWriter> metrics_;  // rank 0
  std::unique_ptr<runtime::TensorBoardWriter> board_;  // rank 0, where wanted
  const absl::Time begin_ = absl::Now();
  std::string trace_;  // its file, while on
  int64_t lost_ = 0;   // entries that could not be written, since the last that was
};

}  // namespace cohort::tools
