// Runs steps on all ranks of a communicator: rank 0 leads, the others follow.
#pragma once

#include <functional>
#include <memory>

#include "comm/communicator.h"
#include "serving/model_runner.h"

namespace cohort::serving {

// What one rank computes of a step. The decoder inside may use the same communicator; every rank calls it
// once a step, also without tokens.
using RankFunction = std::function<absl::StatusOr<RankResult>(const RankStep&)>;

// Rank 0's. Sequences are divided over the ranks by the plan; a rank holds the pages of its own, and experts,
// where the model has them, are reached through the decoder's own exchanges. Each step: every rank gets its
// part and runs it, and what was drawn comes back. A rank that is lost or fails ends the run with an error
// that names it, on every rank, within the communicator's timeout.
class DistributedRunner final : public ModelRunner {
 public:
  // `local`: of one rank. All ranks must have made theirs alike. `communicator` must outlive the runner.
  DistributedRunner(comm::Communicator& communicator, RunnerInfo local, RankFunction run_rank);
  ~DistributedRunner() override { Stop(); }

  RunnerInfo info() const override { return info_; }
  absl::StatusOr<StepResult> Run(const Step& step) override;
  absl::Status Idle() override;
  void Stop() override;

 private:
  // Tells every other rank what comes: its part of the step, or, without one, to keep waiting or to stop.
  absl::Status Announce(const Step* step);

  comm::Communicator& communicator_;
  RunnerInfo info_;
  RankFunction run_rank_;
  bool stopping_ = false;
  bool over_ = false;  // stopped or failed: the others do not listen any more
};

// The other ranks': runs what rank 0 says until it stops. OK after a stop; else why it ended. Returns within
// the communicator's timeout when rank 0 is lost.
absl::Status RunFollower(comm::Communicator& communicator, const RankFunction& run_rank);

}  // namespace cohort::serving
