// How far predictions are from measured steps, and what corrects them.
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "parallel/planner/cluster.h"
#include "parallel/planner/mesh_plan.h"
#include "parallel/planner/model_cost.h"

namespace cohort::parallel::planner {

struct MeasuredStep {
  MeshPlan plan;
  double seconds = 0;  // of a step of the same model, work and ranks
};

// A line a step: its seconds and its mesh as ParseChoices reads it; `#` begins a comment. What a line leaves out is one
// rank, ddp, no recomputation, and `micro_batch` sequences at once. Errors name `source` and the line.
absl::StatusOr<std::vector<MeasuredStep>> ParseMeasuredSteps(absl::string_view text, absl::string_view source,
                                                             int64_t micro_batch);

struct Calibration {
  double computing = 1;      // times as long as predicted
  double communication = 1;  // likewise
  int steps = 0;
  // The largest relative error of the prediction of a step from all others. Of fewer than two steps nothing is known:
  // policy::kAssumedError.
  double error = 0;

  Cluster Apply(Cluster cluster) const;
};

// With three steps or more, computing and communication have a factor each, least squares of relative errors; with
// fewer, the same one. INVALID_ARGUMENT: a step's plan is not legal.
absl::StatusOr<Calibration> Calibrate(const ModelCost& model, const Work& work, const Cluster& cluster,
                                      const std::vector<MeasuredStep>& steps);

}  // namespace cohort::parallel::planner
