// How a model goes through its pipeline: which blocks each stage has, on which rank it is, and in which order the
// micro-batches of a step pass. A pure value, but for the schedule's file.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "parallel/pipeline/schedule.h"
#include "runtime/model/decoder.h"
#include "runtime/model/model_config.h"

namespace cohort::parallel {

// What a micro-batch's forward and backward take, in seconds or any unit: blocks are dealt to stages by it.
struct BlockCosts {
  std::vector<double> blocks = {};  // of each; empty: the parameters that a token meets stand for all of it
  double embedding = 0, head = 0;   // counted where `blocks` is given
};

// Whether this names a file and not a row of pipeline/schedules: it has a dot or a slash.
bool IsScheduleFile(const std::string& schedule);

class PipelinePlan {
 public:
  // `schedule`: a row of pipeline/schedules, or a file (pipeline/schedule_file.h), which says by itself how many stages
  // a rank has. One rank with one stage needs none, and keeps the activations of one micro-batch. INVALID_ARGUMENT,
  // naming the numbers: more stages than blocks, stages a rank that the schedule cannot have, a file for other ranks or
  // micro-batches than there are, and what is wrong with a file; also costs of other blocks. `micro_batches` 0: any, where
  // only the stages matter.
  static absl::StatusOr<PipelinePlan> Create(const runtime::ModelConfig& config, const std::string& schedule,
                                             int ranks, int stages_per_rank, int micro_batches,
                                             const BlockCosts& costs);

  // Of a training step.
  const pipeline::Schedule& schedule() const { return schedule_; }
  bool from_file() const { return from_file_; }
  int stages() const { return schedule_.stages(); }
  const std::vector<int>& rank_of() const { return schedule_.rank_of; }
  std::vector<int> StagesOf(int rank) const { return schedule_.StagesOf(rank); }
  // By stage, and at the end the number of blocks.
  const std::vector<int>& first_block() const { return first_block_; }
  // What a stage has of the model. The head of tied embeddings has a copy where there are several stages; in
  // deterministic mode always, so that what goes into which sum does not depend on their number.
  runtime::DecoderPart PartOf(int stage, bool deterministic = false) const;

 private:
  PipelinePlan(pipeline::Schedule schedule, bool from_file, bool tied, std::vector<int> first_block)
      : schedule_(std::move(schedule)),
        from_file_(from_file),
        tied_(tied),
        first_block_(std::move(first_block)) {}

  pipeline::Schedule schedule_;
  bool from_file_, tied_;
  std::vector<int> first_block_;
};

}  // namespace cohort::parallel
