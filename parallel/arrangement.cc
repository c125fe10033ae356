#include "parallel/arrangement.h"

#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "comm/check.h"
#include "parallel/pipeline/schedules/schedules.h"
#include "parallel/pipeline_plan.h"
#include "parallel/sequence/attention_plan.h"

namespace cohort::parallel {
namespace {

absl::Status Bad(absl::string_view key, absl::string_view value, const absl::Status& why) {
  return absl::InvalidArgumentError(absl::StrCat("parallel.", key, " is '", value, "': ", why.message()));
}

absl::Status CheckStages(const v1::ParallelSection& section, const Arrangement& arrangement, int blocks) {
  if (IsScheduleFile(arrangement.schedule)) {  // read, and held against the model, with the plan
    if (!section.has_stages_per_rank()) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat("parallel.stages_per_rank is ", section.stages_per_rank(),
                     ", and the stages of each rank are those of its line in parallel.schedule ",
                     arrangement.schedule, ": leave it out"));
  }
  const int64_t stages = int64_t{arrangement.shape.pipeline} * arrangement.stages_per_rank;
  if (stages > blocks) {
    return absl::InvalidArgumentError(absl::StrCat(
        "parallel.pipeline is ", arrangement.shape.pipeline, ", with ", arrangement.stages_per_rank,
        arrangement.stages_per_rank == 1 ? " stage" : " stages", " a rank: ", stages,
        " stages, and the model has ", blocks, blocks == 1 ? " block" : " blocks"));
  }
  if (arrangement.shape.pipeline == 1 && arrangement.stages_per_rank == 1 &&
      pipeline::FindScheduleGenerator(arrangement.schedule) != nullptr) {
    return absl::OkStatus();  // any of them is the same then; of another name it is said that there is none
  }
  const absl::Status made =
      pipeline::MakeSchedule(arrangement.schedule, {.ranks = arrangement.shape.pipeline,
                                                    .chunks = arrangement.stages_per_rank,
                                                    .micro_batches = arrangement.shape.pipeline})
          .status();
  return made.ok() ? made : Bad("schedule", section.schedule(), made);
}

}  // namespace

absl::StatusOr<Arrangement> ArrangementOf(const v1::ParallelSection& section,
                                          const runtime::ModelConfig& model, int ranks) {
  Arrangement result;
  result.shape = {.pipeline = section.pipeline(),
                  .shard = section.shard(),
                  .context = section.context(),
                  .tensor = section.tensor(),
                  .expert = section.expert()};
  COHORT_ASSIGN_OR_RETURN(const Mesh mesh,
                          Mesh::Create(result.shape, std::vector<int>(static_cast<size_t>(ranks), 0)));

  const auto sharding =
      ParseSharding(section.sharding(), section.secondary(), section.gather_codec(), section.reduce_codec());
  if (!sharding.ok()) return Bad("sharding", section.sharding(), sharding.status());
  result.sharding = *sharding;
  const int neighbours = result.shape.shard * result.shape.context * result.shape.tensor;
  const absl::Status splits = Resolve(result.sharding, neighbours, mesh.stage_size()).status();
  if (!splits.ok()) return Bad("sharding", section.sharding(), splits);

  const auto split = ParseSplitKind(section.context_split());
  if (!split.ok()) return Bad("context_split", section.context_split(), split.status());
  result.context.split = *split;
  const auto way = ParseAttentionWay(section.context_way(), result.shape.context);
  if (!way.ok()) return Bad("context_way", section.context_way(), way.status());
  result.context.ways = {.forward = *way, .backward = *way};

  if (section.hybrid_tokens() > 0) {
    if (result.shape.context > 1) {
      return absl::InvalidArgumentError(
          absl::StrCat("parallel.hybrid_tokens is ", section.hybrid_tokens(),
                       ", which gives every sequence the ranks that it needs, and parallel.context gives it ",
                       result.shape.context, ": set one of them"));
    }
    // Heads are exchanged among as many ranks as a group has; here every micro-batch has a group of its own.
    if (section.context_way() != "ring" && section.context_way() != "token-ring") {
      return Bad("context_way", section.context_way(),
                 absl::InvalidArgumentError(
                     absl::StrCat("with parallel.hybrid_tokens ", section.hybrid_tokens(),
                                  " sequences go over ranks by ring or token-ring alone: set one of them")));
    }
    result.hybrid = HybridOptions{.tokens = section.hybrid_tokens()};
  }
  if (section.split_batch()) result.split_batch = SplitRule();

  result.schedule = section.schedule();
  const pipeline::ScheduleGenerator* generator = pipeline::FindScheduleGenerator(result.schedule);
  result.stages_per_rank = section.has_stages_per_rank()                       ? section.stages_per_rank()
                           : generator != nullptr && result.shape.pipeline > 1 ? generator->min_chunks
                                                                               : 1;
  COHORT_RETURN_IF_ERROR(CheckStages(section, result, static_cast<int>(model.num_hidden_layers)));
  return result;
}

}  // namespace cohort::parallel
