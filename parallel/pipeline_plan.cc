#include "parallel/pipeline_plan.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "comm/check.h"
#include "parallel/pipeline/balance.h"
#include "parallel/pipeline/schedule_file.h"
#include "parallel/pipeline/schedules/schedules.h"
#include "runtime/file.h"

namespace cohort::parallel {
namespace {

using pipeline::Schedule;

// The parameters that a token meets, to which the time of a block is about proportional.
BlockCosts CostsByParameters(const runtime::ModelConfig& config) {
  BlockCosts costs;
  const auto width = static_cast<double>(config.hidden_size), head_dim = static_cast<double>(config.head_dim);
  const double attention =
      width * head_dim * static_cast<double>(2 * config.num_attention_heads + 2 * config.num_key_value_heads);
  for (int layer = 0; layer < config.num_hidden_layers; ++layer) {
    const int64_t hidden = config.IsSparse(layer)
                               ? config.moe_intermediate_size * config.num_experts_per_tok +
                                     config.shared_expert_intermediate_size
                               : config.intermediate_size;
    costs.blocks.push_back(attention + 3 * width * static_cast<double>(hidden));
  }
  costs.head = width * static_cast<double>(config.vocab_size);
  return costs;
}

// On one rank nothing is gained by keeping the activations of several micro-batches: each is done with before the next.
Schedule OneAfterTheOther(Schedule schedule) {
  std::vector<pipeline::Action>& actions = schedule.actions[0];
  std::stable_sort(actions.begin(), actions.end(),
                   [](const auto& a, const auto& b) { return a.micro_batch < b.micro_batch; });
  return schedule;
}

absl::StatusOr<Schedule> ScheduleOfFile(const std::string& path, int ranks, int micro_batches) {
  COHORT_ASSIGN_OR_RETURN(const std::string text, runtime::ReadFile(path));
  COHORT_ASSIGN_OR_RETURN(Schedule schedule, pipeline::ParseSchedule(text, path));
  if (schedule.ranks() != ranks) {
    return absl::InvalidArgumentError(absl::StrCat(path, " is a schedule of ", schedule.ranks(),
                                                   " ranks, a line each; parallel.pipeline has ", ranks));
  }
  if (micro_batches != 0 && schedule.micro_batches != micro_batches) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, " is a schedule of ", schedule.micro_batches, " micro-batches; a step has ",
                     micro_batches, " here: change train.global_batch or train.micro_batch, or the file"));
  }
  return schedule;
}

}  // namespace

bool IsScheduleFile(const std::string& schedule) {
  return absl::StrContains(schedule, '/') || absl::StrContains(schedule, '.');
}

absl::StatusOr<PipelinePlan> PipelinePlan::Create(const runtime::ModelConfig& config,
                                                  const std::string& schedule, int ranks, int stages_per_rank,
                                                  int micro_batches, const BlockCosts& costs) {
  const bool from_file = IsScheduleFile(schedule);
  absl::StatusOr<Schedule> made;
  if (from_file) {
    made = ScheduleOfFile(schedule, ranks, micro_batches);
  } else {
    const bool none = ranks == 1 && stages_per_rank == 1;
    made = pipeline::MakeSchedule(
        none ? "gpipe" : schedule,
        {.ranks = ranks, .chunks = stages_per_rank, .micro_batches = micro_batches == 0 ? 1 : micro_batches});
    if (made.ok() && none) made = OneAfterTheOther(*std::move(made));
  }
  COHORT_RETURN_IF_ERROR(made.status());
  const BlockCosts by = costs.blocks.empty() ? CostsByParameters(config) : costs;
  if (static_cast<int64_t>(by.blocks.size()) != config.num_hidden_layers) {
    return absl::InvalidArgumentError(
        absl::StrCat("costs of ", by.blocks.size(), " blocks for a model of ", config.num_hidden_layers));
  }
  COHORT_ASSIGN_OR_RETURN(const pipeline::StageSplit split,
                          pipeline::BalanceStages(by.blocks, by.embedding, by.head, made->stages()));
  return PipelinePlan(*std::move(made), from_file, config.tie_word_embeddings, split.first_block);
}

runtime::DecoderPart PipelinePlan::PartOf(int stage, bool deterministic) const {
  const auto s = static_cast<size_t>(stage);
  return {.first_block = first_block_[s],
          .last_block = first_block_[s + 1],
          .embedding = stage == 0,
          .head = stage + 1 == stages(),
          .head_copy = tied_ && stage + 1 == stages() && (stages() > 1 || deterministic)};
}

}  // namespace cohort::parallel
