#include "parallel/configured_model.h"

#include <utility>

#include "comm/check.h"
#include "parallel/arrangement.h"
#include "parallel/mesh_communicators.h"

namespace cohort::parallel {

absl::StatusOr<std::unique_ptr<ParallelModel>> MakeConfiguredModel(const v1::TrainConfig& config,
                                                                   const runtime::ModelConfig& model,
                                                                   runtime::Device& device,
                                                                   std::shared_ptr<comm::Communicator> group,
                                                                   std::unique_ptr<BatchSource> source) {
  COHORT_ASSIGN_OR_RETURN(const Arrangement arrangement,
                          ArrangementOf(config.parallel(), model, group->size()));
  COHORT_ASSIGN_OR_RETURN(const Mesh mesh, MakeMesh(arrangement.shape, *group));
  const auto compute = ParseDataType(config.train().dtype());
  COHORT_CHECK(compute.has_value(), "a complete configuration has dtype %s", config.train().dtype().c_str());
  return ParallelModel::Create(model, device,
                               {.compute = *compute,
                                .recompute = config.train().recompute(),
                                .global_batch = config.train().global_batch(),
                                .micro_batch = config.train().micro_batch(),
                                .sharding = arrangement.sharding,
                                .context = arrangement.context,
                                .hybrid = arrangement.hybrid,
                                .schedule = arrangement.schedule,
                                .stages_per_rank = arrangement.stages_per_rank,
                                .split_batch = arrangement.split_batch,
                                .deterministic = config.train().deterministic(),
                                .virtual_shards = config.train().virtual_shards()},
                               mesh, std::move(group), std::move(source));
}

}  // namespace cohort::parallel
