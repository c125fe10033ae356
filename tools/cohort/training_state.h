// The state of a training run on disk: where it begins or goes on from, and its checkpoints.
#pragma once

#include <functional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "cohort/v1/config.pb.h"
#include "parallel/parallel_model.h"
#include "runtime/checkpoint/checkpoint.h"
#include "runtime/model/model_config.h"
#include "runtime/optim/optimizer.h"
#include "tools/cohort/training_setup.h"

namespace cohort::tools {

class TrainingState {
 public:
  TrainingState(const v1::TrainConfig& config, const runtime::ModelConfig& model, const TrainingData& data);

  // Collective over the model's ranks. With `resume` from the newest checkpoint of this run where there is one; else from
  // the weights of model.path, or at random. FAILED_PRECONDITION: the ranks see different disks. INVALID_ARGUMENT,
  // the same on all of them: the checkpoint is of another training; which keys differ.
  absl::Status Load(parallel::ParallelModel& model, runtime::OptimizerState& optimizer, bool resume);
  // Collective. The path of what was written.
  absl::StatusOr<std::string> Save(parallel::ParallelModel& model, const runtime::OptimizerState& optimizer,
                                   int64_t step);

  // The same of pieces that lie elsewhere, by another thread: of the state after `step`, with the counts of now.
  std::function<absl::StatusOr<std::string>(runtime::SavingRanks&, absl::Span<const runtime::WrittenState>,
                                            const std::string& attempt)>
  Writer(int64_t step) const;

  // Trained on so far, and spent.
  int64_t tokens() const { return state_.tokens; }
  double seconds() const { return state_.seconds; }
  void Count(int64_t tokens, double seconds) {
    state_.tokens += tokens;
    state_.seconds += seconds;
  }
  void SetCounts(int64_t tokens, double seconds) {
    state_.tokens = tokens;
    state_.seconds = seconds;
  }

 private:
  runtime::CheckpointOptions Options() const;
  absl::Status CheckModel(const std::string& folder) const;
  absl::Status CheckResume(const runtime::TrainerState& saved, const std::string& folder) const;

  const v1::TrainConfig config_;
  const runtime::ModelConfig model_config_;
  const std::string tokenizer_json_;
  runtime::TrainerState state_;
};

}  // namespace cohort::tools
