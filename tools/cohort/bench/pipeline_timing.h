// What the ranks of a pipeline measured, held against the simulator.
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "comm/communicator.h"
#include "parallel/pipeline/executor.h"
#include "parallel/pipeline/schedule.h"
#include "parallel/pipeline/simulate.h"

namespace cohort::tools {

// Of one step, on all ranks, each on a clock of its own that began with its run.
struct MeasuredStep {
  std::vector<std::vector<double>> begin, end,
      kept;  // by rank, in the order of its list: seconds, seconds, bytes
};

// Collective: every rank's trace of a step, on every rank.
absl::StatusOr<MeasuredStep> GatherTraces(comm::Communicator& ranks,
                                          const parallel::pipeline::Schedule& schedule,
                                          const parallel::pipeline::ExecutorTrace& mine);

// A step as the simulator would tell it: the last rank's end, times in which ranks compute, and the most bytes that
// each keeps. The rest of the time ranks wait for messages, or are between two actions.
parallel::pipeline::Simulation AsSimulation(const parallel::pipeline::Schedule& schedule,
                                            const MeasuredStep& step);

// Times and bytes of each stage. Of an action the median over the steps, which others who use the machine do not move;
// of a stage the mean over its micro-batches, because a step takes as long as all of them together. Where a schedule
// has both gradients in one, their time is the input's.
std::vector<parallel::pipeline::StageCosts> CostsOf(const parallel::pipeline::Schedule& schedule,
                                                    const std::vector<MeasuredStep>& steps);

// Collective: what a message of so many bytes takes from a rank to the next, while nobody computes: of all neighbours
// the slowest, measured one pair after another. One rank: nothing.
absl::StatusOr<parallel::pipeline::TransferCosts> MeasureTransfers(comm::Communicator& ranks, size_t bytes);

}  // namespace cohort::tools
