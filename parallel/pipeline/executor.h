// Runs a pipeline schedule: this rank's list, action by action.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "comm/communicator.h"
#include "parallel/pipeline/schedule.h"
#include "runtime/model/decoder.h"

namespace cohort::parallel::pipeline {

// The stages of this rank are the decoder's parts that Schedule::StagesOf names. Activations go to the next stage's
// rank as soon as they are there; a rank waits only for what its next action needs. Sends are waited for at the end.
// One thread; errors are the communicator's or the decoders'.
class Executor {
 public:
  // `ranks`: the schedule's, in its numbering; its messages are this object's alone. The decoders outlive this.
  Executor(Schedule schedule, std::shared_ptr<comm::Communicator> ranks,
           std::map<int, runtime::Decoder*> stages, runtime::TensorGroup& tensor)
      : schedule_(std::move(schedule)),
        ranks_(std::move(ranks)),
        stages_(std::move(stages)),
        tensor_(tensor) {}

  const Schedule& schedule() const { return schedule_; }

  // One step: all micro-batches, schedule().micro_batches of them, forward and backward. sums[s][m]: what
  // stage s, of this rank, adds up of micro-batch m (empty for others' stages). `enter`, where there is one,
  // is told what comes next.
  absl::Status Run(absl::Span<const runtime::TokenBatch> micro_batches, const runtime::LossScale& scale,
                   std::vector<std::vector<runtime::LossSums>>& sums,
                   const std::function<void(const Action&)>& enter = nullptr);
  // One micro-batch forward. sums[s]: of stage s.
  absl::Status Evaluate(const runtime::TokenBatch& micro_batch, std::vector<runtime::LossSums>& sums);

 private:
  struct InFlight {
    runtime::Tensor tensor;
    comm::Work work;
  };
  enum class Direction : uint8_t { kForward, kBackward };

  int rank() const { return ranks_->rank(); }
  // The stage that takes what `stage` makes; -1: none.
  int Next(int stage, Direction direction) const;
  // The activations or gradients that go into `stage`: [t, D], from this rank's own hands or another's.
  absl::StatusOr<runtime::Tensor> Take(int stage, int micro_batch, Direction direction,
                                       const runtime::TokenBatch& batch);
  void Give(int stage, int micro_batch, Direction direction, runtime::Tensor made);
  absl::Status FinishSends();

  const Schedule schedule_;
  const std::shared_ptr<comm::Communicator> ranks_;
  const std::map<int, runtime::Decoder*> stages_;
  runtime::TensorGroup& tensor_;
  // Between two stages of this rank, by (stage that takes it, micro-batch, direction).
  std::map<std::tuple<int, int, Direction>, runtime::Tensor> kept_;
  std::vector<InFlight> sends_;
};

}  // namespace cohort::parallel::pipeline
