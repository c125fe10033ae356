// What one step of training takes on one mesh: seconds by what they go to, and bytes of the fullest rank.
#pragma once

#include <array>
#include <map>
#include <tuple>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "comm/operation.h"
#include "parallel/planner/cluster.h"
#include "parallel/planner/links.h"
#include "parallel/planner/mesh_plan.h"
#include "parallel/planner/model_cost.h"
#include "parallel/planner/shared_cores.h"

namespace cohort::parallel::planner {

// X(field, name, what it is). Seconds of a step of the slowest rank; they add up to the step.
#define COHORT_STEP_PARTS(X)                                                                  \
  X(compute, "compute", "layers, forward and backward, at their part of the cores")           \
  X(recompute, "recompute", "forwards that are computed again")                               \
  X(tensor, "tensor", "gathers and reduce-scatters of tokens in tensor groups")               \
  X(context, "context", "keys and values on their way, as far as attention does not hide it") \
  X(expert, "expert", "tokens to their experts and back")                                     \
  X(gathers, "gathers", "parameters gathered around their use, as far as not hidden")         \
  X(reductions, "reductions", "gradients reduced, as far as the backward does not hide it")   \
  X(publish, "publish", "new values from where they were computed to where they are kept")    \
  X(optimizer, "optimizer", "the update")                                                     \
  X(bubble, "bubble", "a pipeline that fills and drains, and its messages")

struct StepTime {
#define COHORT_X(field, name, meaning) double field = 0;
  COHORT_STEP_PARTS(COHORT_X)
#undef COHORT_X
  double hidden = 0;  // communication behind computing: not a part of the sum

  double total() const;
};
struct StepPart {
  const char* name;
  const char* meaning;
  double StepTime::*seconds;
};
absl::Span<const StepPart> StepParts();

// Bytes of the rank that needs most.
struct StepMemory {
  double parameters = 0;   // that stay
  double gathered = 0;     // the most of whole ones beside them at a time
  double gradients = 0;    // that stay
  double reducing = 0;     // the most of whole ones beside them at a time
  double whole = 0;        // the most of both of these at a time
  double optimizer = 0;    // moments, and masters where the compute type is another
  double activations = 0;  // of all micro-batches in flight
  double working = 0;      // of what is being computed

  double total() const { return parameters + gradients + whole + optimizer + activations + working; }
};

struct MeshPrice {
  StepTime time;
  StepMemory memory;
  int micro_batches = 1;
  bool simulated = false;  // the pipeline's schedule was run action by action
};

// Prices one plan after another for one model, work and cluster. Not thread-safe: prices of messages are kept.
class MeshPricer {
 public:
  // `model` outlives it.
  MeshPricer(const ModelCost& model, const Work& work, const Cluster& cluster);

  // OK, or the reason why the plan cannot be: axes that do not divide, heads, blocks, experts, tokens, sharding.
  absl::Status Check(const MeshPlan& plan) const;
  // Of a plan that Check lets pass; pipelines by closed formulas.
  MeshPrice Price(const MeshPlan& plan);
  // The same, with the pipeline's schedule simulated (parallel/pipeline/simulate.h).
  absl::StatusOr<MeshPrice> Simulate(const MeshPlan& plan);
  // Seconds below which no plan of this shape and schedule can be: computing without any communication.
  double LeastSeconds(const MeshShape& shape);
  // Sequences of the data rank that has most.
  int64_t LocalBatch(const MeshShape& shape) const;

  int ranks() const { return cluster_.ranks(); }

 private:
  // Seconds of one layer on one rank, one micro-batch.
  struct LayerCosts {
    double forward = 0, backward = 0;  // computing
    double tensor_forward = 0, tensor_backward = 0;
    double context_forward = 0, context_backward = 0, context_hidden = 0;
    double expert_forward = 0, expert_backward = 0;
    double gather_forward = 0, gather_backward = 0;
    double reduce = 0, reduce_last = 0;  // in each micro-batch; besides, in the last one
    double publish = 0, update = 0;      // in a step
  };
  // What a rank of a pipeline has.
  struct RankLoad {
    int rank = 0;
    std::array<int, kNumLayers> layers = {};
    std::vector<int> stages = {};
  };
  struct PipelineLoads {
    std::vector<RankLoad> distinct;                     // each kind once, of the lowest rank
    std::vector<std::array<int, kNumLayers>> of_stage;  // by stage
    int heaviest = 0;                                   // index in `distinct`
    double mean_share = 1;                              // FLOPs of the mean rank over those of the heaviest
  };
  // A plan, resolved.
  struct Resolved {
    int stage = 1;  // ranks
    int micro_batches = 1;
    double tokens = 0;       // of a tensor group, in the largest micro-batch
    double mean_tokens = 0;  // in the mean one
    Splits replicated, tensor, expert;
    std::array<LayerCosts, kNumLayers> layers;
    const PipelineLoads* loads = nullptr;
  };
  // What a rank spends in one micro-batch.
  struct Slot : SharedStage {
    StepTime time;  // all of it, by part
  };

  Resolved Resolve(const MeshPlan& plan);
  // One layer's computing of one micro-batch, by a rank with a core for itself.
  LayerSeconds ComputingOf(Layer layer, const MeshPlan& plan, double tokens) const;
  LayerCosts TimesOf(Layer layer, const MeshPlan& plan, const Resolved& resolved);
  const PipelineLoads& LoadsOf(int pipeline, int chunks, bool v);
  Slot SlotOf(const std::array<int, kNumLayers>& layers, const MeshPlan& plan, const Resolved& resolved,
              bool last) const;
  StepMemory MemoryOf(const RankLoad& load, const MeshPlan& plan, const Resolved& resolved);
  // What is gathered and reduced around the uses of a stage with these layers, in the fields that say so.
  const StepMemory& WholeOf(const std::array<int, kNumLayers>& layers, const MeshPlan& plan,
                            const Resolved& resolved);
  MeshPrice PriceResolved(const MeshPlan& plan, const Resolved& resolved);
  double Moves(comm::Operation operation, const Splits& splits, int stride, int coarse, int fine,
               double bytes);
  // Ranks of a pipeline that share cores: how much longer all their computing takes than this rank's step without a
  // bubble; and `idle` seconds of it as what they are: waiting for a core, or for other stages.
  double Lacking(const PipelineLoads& loads, const StepTime& time) const;
  void Settle(const PipelineLoads& loads, double idle, StepTime& time) const;
  double HopSeconds(const MeshPlan& plan, const Resolved& resolved) const;

  const ModelCost& model_;
  const Work work_;
  const Cluster cluster_;
  LinkPrices links_;
  std::map<std::tuple<int, int, bool>, PipelineLoads> loads_;
  std::map<std::vector<int>, StepMemory> whole_;
};

}  // namespace cohort::parallel::planner
