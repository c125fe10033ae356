#include "parallel/planner/plan_config.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "comm/check.h"
#include "runtime/config/yaml_message.h"

namespace cohort::parallel::planner {

absl::StatusOr<Choices> ChoicesOf(const v1::TrainConfig& config) {
  const v1::ParallelSection& section = config.parallel();
  const struct {
    const char* key;
    bool set;
  } without_price[] = {{"stages_per_rank", section.has_stages_per_rank()},
                       {"secondary", section.has_secondary()},
                       {"gather_codec", section.has_gather_codec()},
                       {"reduce_codec", section.has_reduce_codec()}};
  for (const auto& [key, set] : without_price) {
    if (set) {
      return absl::InvalidArgumentError(absl::StrCat(
          "parallel.", key, " is set, which parallel.mesh: auto has no prices for: leave one of them out"));
    }
  }
  Choices choices;
  if (section.has_pipeline()) choices.pipeline = section.pipeline();
  if (section.has_shard()) choices.shard = section.shard();
  if (section.has_context()) choices.context = section.context();
  if (section.has_tensor()) choices.tensor = section.tensor();
  if (section.has_expert()) choices.expert = section.expert();
  if (section.has_sharding()) {
    const absl::Status known = ParseSharding(section.sharding()).status();
    if (!known.ok()) return absl::InvalidArgumentError(absl::StrCat("parallel.sharding: ", known.message()));
    choices.sharding = section.sharding();
  }
  if (section.has_schedule()) {
    if (ChunksOf(section.schedule()) == 0) {
      return absl::InvalidArgumentError(absl::StrCat("parallel.schedule is '", section.schedule(),
                                                     "', which parallel.mesh: auto has no prices for; use ",
                                                     absl::StrJoin(PlannedSchedules(), ", "),
                                                     ", or leave it out"));
    }
    choices.schedule = section.schedule();
  }
  if (config.train().has_micro_batch()) choices.micro_batch = config.train().micro_batch();
  if (config.train().has_recompute()) choices.recompute = config.train().recompute();
  return choices;
}

void WritePlan(const MeshPlan& plan, v1::TrainConfig& config) {
  v1::ParallelSection& section = *config.mutable_parallel();
  section.clear_mesh();
  section.set_pipeline(plan.shape.pipeline);
  section.set_shard(plan.shape.shard);
  section.set_context(plan.shape.context);
  section.set_tensor(plan.shape.tensor);
  section.set_expert(plan.shape.expert);
  section.set_sharding(plan.sharding_name);
  section.set_schedule(plan.schedule);
  section.set_stages_per_rank(plan.chunks);
  config.mutable_train()->set_micro_batch(static_cast<int>(plan.micro_batch));
  config.mutable_train()->set_recompute(plan.recompute);
}

std::string PlanYaml(const MeshPlan& plan, const Work& work) {
  v1::TrainConfig config;
  WritePlan(plan, config);
  if (plan.shape.pipeline == 1) {
    config.mutable_parallel()->clear_schedule();
    config.mutable_parallel()->clear_stages_per_rank();
  }
  config.mutable_train()->set_global_batch(static_cast<int>(work.global_batch));
  config.mutable_data()->set_sequence_length(static_cast<int>(work.sequence_length));
  return runtime::ToYaml(config);
}

}  // namespace cohort::parallel::planner
