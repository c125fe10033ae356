// What a rank keeps.
#include <algorithm>

#include "parallel/planner/price.h"

namespace cohort::parallel::planner {
namespace {

// Micro-batches of a whole rank's layers that `rank` keeps at most.
double InFlight(const MeshPlan& plan, int rank, int micro_batches) {
  const int ranks = plan.shape.pipeline;
  const double all = micro_batches;
  if (ranks == 1) return 1;
  if (plan.schedule == "zb-v") return std::min<double>(all, ranks);
  if (plan.schedule == "interleaved") {
    const int groups = std::max(1, micro_batches / ranks);
    const int largest = (micro_batches + groups - 1) / groups;
    const double ahead = 2.0 * (ranks - 1 - rank) + (plan.chunks - 1.0) * largest + 1;
    return std::min(all, ahead / plan.chunks);
  }
  return std::min<double>(all, ranks - rank);
}

}  // namespace

StepMemory MeshPricer::MemoryOf(const RankLoad& load, const MeshPlan& plan, const Resolved& resolved) const {
  const double compute_bytes = work_.compute_bytes;
  StepMemory memory;
  double whole[2] = {}, gradient[2] = {};  // of the two largest groups: one in use, one ahead or on its way
  const auto keep_two = [](double(&largest)[2], double bytes, int number) {
    for (int i = 0; i < std::min(number, 2); ++i) {
      if (bytes > largest[0]) {
        largest[1] = largest[0], largest[0] = bytes;
      } else {
        largest[1] = std::max(largest[1], bytes);
      }
    }
  };
  const double in_flight = InFlight(plan, load.rank, resolved.micro_batches);
  for (int i = 0; i < kNumLayers; ++i) {
    const int number = load.layers[i];
    if (number == 0) continue;
    const Layer layer = static_cast<Layer>(i);
    const ParameterCount count = model_.ParametersOf(layer, plan.shape.pipeline > 1);
    const struct {
      double elements;
      const Splits& splits;
    } placements[] = {{static_cast<double>(count.replicated), resolved.replicated},
                      {static_cast<double>(count.tensor) / plan.shape.tensor, resolved.tensor},
                      {static_cast<double>(count.expert) / plan.shape.expert, resolved.expert}};
    double gathered = 0, reducing = 0;
    for (const auto& [elements, splits] : placements) {
      memory.parameters += number * elements / splits.parameters * compute_bytes;
      if (splits.keeps_secondary()) memory.parameters += number * elements / splits.secondary * compute_bytes;
      memory.gradients += number * elements / splits.gradients * kStateBytes;
      if (splits.optimizer > splits.gradients) {
        memory.gradients += number * elements / splits.optimizer * kStateBytes;
      }
      memory.optimizer +=
          number * elements / splits.optimizer * kStateBytes * (compute_bytes == kStateBytes ? 2 : 3);
      if (splits.parameters > 1) gathered += elements * compute_bytes;
      if (splits.gradients > 1) reducing += elements * kStateBytes;
    }
    keep_two(whole, gathered, number);
    keep_two(gradient, reducing, number);
    const double kept =
        model_.KeptBytes(layer, resolved.tokens, plan.shape.tensor, work_.compute_bytes, plan.recompute);
    memory.activations += number * kept * (layer == Layer::kHead ? 1 : in_flight);
    memory.working = std::max(memory.working, model_.WorkingBytes(layer, resolved.tokens, plan.shape.tensor,
                                                                  work_.compute_bytes, plan.recompute));
  }
  memory.gathered = whole[0] + whole[1];
  memory.reducing = gradient[0] + gradient[1];
  return memory;
}

}  // namespace cohort::parallel::planner
