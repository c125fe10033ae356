// What a rank keeps.
#include <algorithm>
#include <cmath>

#include "comm/check.h"
#include "parallel/pipeline/schedules/schedules.h"
#include "parallel/planner/price.h"
#include "parallel/sharding/memory.h"

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

const StepMemory& MeshPricer::WholeOf(const std::array<int, kNumLayers>& layers, const MeshPlan& plan,
                                      const Resolved& resolved) {
  // Which of it is split matters, not over how many, and that halves of backwards lie apart, not how far: the first
  // ones of all groups are over before a second one, so whole gradients of all of them exist in every such schedule. A
  // head's, made in the forward, come on top where that is before the second half; in a V it is after it.
  const pipeline::ScheduleGenerator* generator = pipeline::FindScheduleGenerator(plan.schedule);
  COHORT_CHECK(generator != nullptr, "a plan with the schedule %s", plan.schedule.c_str());
  const bool halves = plan.shape.pipeline > 1 && generator->split_backward,
             v = generator->placement == pipeline::Placement::kV;
  std::vector<int> key(layers.begin(), layers.end());
  key.insert(key.end(), {plan.shape.tensor, plan.shape.expert, plan.shape.pipeline > 1, halves, v});
  const Splits* const splits[] = {&resolved.replicated, &resolved.tensor, &resolved.expert};
  for (const Splits* placement : splits) {
    key.insert(key.end(), {placement->parameters > 1, placement->gradients > 1});
  }
  const auto [at, added] = whole_.try_emplace(std::move(key));
  StepMemory& memory = at->second;
  if (!added) return memory;

  // The layers are in the order in which they are used; dense blocks before those with experts.
  std::vector<std::vector<BucketSize>> groups;
  for (int i = 0; i < kNumLayers; ++i) {
    const ParameterCount count = model_.ParametersOf(static_cast<Layer>(i), plan.shape.pipeline > 1);
    const double elements[] = {static_cast<double>(count.replicated),
                               static_cast<double>(count.tensor) / plan.shape.tensor,
                               static_cast<double>(count.expert) / plan.shape.expert};
    std::vector<BucketSize> buckets;
    for (int p = 0; p < 3; ++p) buckets.push_back({std::llround(elements[p]), *splits[p], 0});
    groups.insert(groups.end(), static_cast<size_t>(layers[i]), buckets);
  }
  const bool embedding = layers[static_cast<int>(Layer::kEmbedding)] > 0,
             head = layers[static_cast<int>(Layer::kHead)] > 0;
  const GroupLayout layout = {.groups = static_cast<int>(groups.size()),
                              .embedding = embedding,
                              .head = head,
                              .tied = model_.config().tie_word_embeddings && embedding && head};
  using enum pipeline::ActionKind;
  constexpr pipeline::Action kHalves[] = {{kForward, 0, 0},        {kBackwardInput, 0, 0},
                                          {kForward, 0, 1},        {kBackwardInput, 0, 1},
                                          {kBackwardWeight, 0, 0}, {kBackwardWeight, 0, 1}};
  constexpr pipeline::Action kHalvesAtOnce[] = {{kForward, 0, 0},        {kBackwardInput, 0, 0},
                                                {kBackwardWeight, 0, 0}, {kForward, 0, 1},
                                                {kBackwardInput, 0, 1},  {kBackwardWeight, 0, 1}};
  absl::Span<const pipeline::Action> actions;
  if (halves) actions = v && head ? absl::MakeConstSpan(kHalvesAtOnce) : absl::MakeConstSpan(kHalves);
  const StateMemory state = PlanMemory(groups, layout, work_.compute_bytes, static_cast<int64_t>(kStateBytes),
                                       work_.compute_bytes == kStateBytes, actions);
  memory.gathered = static_cast<double>(state.gathered);
  memory.reducing = static_cast<double>(state.reducing);
  memory.whole = static_cast<double>(state.peak - state.resident());
  return memory;
}

StepMemory MeshPricer::MemoryOf(const RankLoad& load, const MeshPlan& plan, const Resolved& resolved) {
  const double compute_bytes = work_.compute_bytes;
  StepMemory memory;
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
    for (const auto& [elements, splits] : placements) {
      memory.parameters += number * elements / splits.parameters * compute_bytes;
      if (splits.keeps_secondary()) memory.parameters += number * elements / splits.secondary * compute_bytes;
      memory.gradients += number * elements / splits.gradients * kStateBytes;
      if (splits.optimizer > splits.gradients) {
        memory.gradients += number * elements / splits.optimizer * kStateBytes;
      }
      memory.optimizer +=
          number * elements / splits.optimizer * kStateBytes * (compute_bytes == kStateBytes ? 2 : 3);
    }
    const double kept =
        model_.KeptBytes(layer, resolved.tokens, plan.shape.tensor, work_.compute_bytes, plan.recompute);
    memory.activations += number * kept * (layer == Layer::kHead ? 1 : in_flight);
    memory.working = std::max(memory.working, model_.WorkingBytes(layer, resolved.tokens, plan.shape.tensor,
                                                                  work_.compute_bytes, plan.recompute));
  }
  // Stages of a rank have gathers and sums of their own, which wait for their own next uses.
  for (const int stage : load.stages) {
    const StepMemory& whole = WholeOf(resolved.loads->of_stage[stage], plan, resolved);
    memory.gathered += whole.gathered;
    memory.reducing += whole.reducing;
    memory.whole += whole.whole;
  }
  return memory;
}

}  // namespace cohort::parallel::planner
