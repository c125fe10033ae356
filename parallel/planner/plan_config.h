// Plans and configurations: what a configuration fixes of a plan, and a plan as keys of a configuration.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "cohort/v1/config.pb.h"
#include "parallel/planner/mesh_plan.h"

namespace cohort::parallel::planner {

// What is set in `parallel` and `train`, before defaults are: it stays. INVALID_ARGUMENT: a key that a plan has no
// price for.
absl::StatusOr<Choices> ChoicesOf(const v1::TrainConfig& config);

// Sets every key by which the plan is what it is, and takes parallel.mesh away.
void WritePlan(const MeshPlan& plan, v1::TrainConfig& config);

// The same keys alone, to be put into a configuration. YAML.
std::string PlanYaml(const MeshPlan& plan, const Work& work);

}  // namespace cohort::parallel::planner
