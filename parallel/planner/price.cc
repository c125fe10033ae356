#include "parallel/planner/price.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "absl/strings/str_cat.h"
#include "comm/check.h"
#include "parallel/pipeline/balance.h"
#include "parallel/pipeline/schedules/schedules.h"
#include "parallel/planner/legal_plans.h"

namespace cohort::parallel::planner {
namespace {

constexpr StepPart kStepParts[] = {
#define COHORT_X(field, name, meaning) {name, meaning, &StepTime::field},
    COHORT_STEP_PARTS(COHORT_X)
#undef COHORT_X
};

bool IsV(const MeshPlan& plan) { return plan.schedule == "zb-v"; }

}  // namespace

absl::Span<const StepPart> StepParts() { return kStepParts; }

double StepTime::total() const {
  double sum = 0;
  for (const StepPart& part : kStepParts) sum += this->*part.seconds;
  return sum;
}

MeshPricer::MeshPricer(const ModelCost& model, const Work& work, const Cluster& cluster)
    : model_(model), work_(work), cluster_(cluster), links_(cluster.machine, cluster.communication_scale) {
  COHORT_CHECK(cluster.flops > 0 && work.sequence_length > 0 && work.global_batch > 0,
               "a plan for ranks of %g FLOP/s", cluster.flops);
}

int64_t MeshPricer::LocalBatch(const MeshShape& shape) const {
  return planner::LocalBatch(work_, ranks(), shape);
}

absl::Status MeshPricer::Check(const MeshPlan& plan) const { return CheckPlan(model_, work_, ranks(), plan); }

const MeshPricer::PipelineLoads& MeshPricer::LoadsOf(int pipeline, int chunks, bool v) {
  const auto [at, added] = loads_.try_emplace({pipeline, chunks, v});
  PipelineLoads& loads = at->second;
  if (!added) return loads;
  std::vector<double> costs;
  for (int block = 0; block < model_.blocks(); ++block) {
    costs.push_back(model_.layer(model_.block(block)).flops());
  }
  const int stages = pipeline * chunks;
  const auto split = pipeline::BalanceStages(costs, model_.layer(Layer::kEmbedding).flops(),
                                             model_.layer(Layer::kHead).flops(), stages);
  COHORT_CHECK(split.ok(), "%s", split.status().ToString().c_str());
  const std::vector<int> rank_of =
      pipeline::PlaceStages(v ? pipeline::Placement::kV : pipeline::Placement::kLoop, pipeline, chunks);
  std::vector<RankLoad> ranks(pipeline);
  loads.of_stage.resize(stages);
  for (int stage = 0; stage < stages; ++stage) {
    std::array<int, kNumLayers>& layers = loads.of_stage[stage];
    for (int block = split->first_block[stage]; block < split->first_block[stage + 1]; ++block) {
      ++layers[static_cast<int>(model_.block(block))];
    }
    layers[static_cast<int>(Layer::kEmbedding)] = stage == 0 ? 1 : 0;
    layers[static_cast<int>(Layer::kHead)] = stage == stages - 1 ? 1 : 0;
    for (int i = 0; i < kNumLayers; ++i) ranks[rank_of[stage]].layers[i] += layers[i];
    ranks[rank_of[stage]].stages.push_back(stage);
  }
  double most = -1, sum = 0;
  for (int rank = 0; rank < pipeline; ++rank) {
    ranks[rank].rank = rank;
    double flops = 0;
    for (int i = 0; i < kNumLayers; ++i) {
      flops += ranks[rank].layers[i] * model_.layer(static_cast<Layer>(i)).flops();
    }
    sum += flops;
    const auto same = [&](const RankLoad& other) { return other.layers == ranks[rank].layers; };
    if (std::none_of(loads.distinct.begin(), loads.distinct.end(), same)) {
      loads.distinct.push_back(ranks[rank]);
      if (flops > most) loads.heaviest = static_cast<int>(loads.distinct.size()) - 1;
    }
    most = std::max(most, flops);
  }
  loads.mean_share = sum / pipeline / most;
  return loads;
}

double MeshPricer::LeastSeconds(const MeshShape& shape) {
  const PipelineLoads& loads = LoadsOf(shape.pipeline, 1, false);
  double flops = 0;
  if (shape.pipeline == 1) {
    flops = model_.forward_flops();
  } else {
    // Schedules with more stages a rank may balance better: the mean rank's is what nobody is below.
    for (int i = 0; i < kNumLayers; ++i) {
      flops += loads.distinct[loads.heaviest].layers[i] * model_.layer(static_cast<Layer>(i)).flops();
    }
    flops *= loads.mean_share;
  }
  const double tokens =
      static_cast<double>(LocalBatch(shape)) * static_cast<double>(work_.sequence_length) / shape.context;
  return 3 * flops * tokens / shape.tensor / (cluster_.flops * cluster_.cores);
}

MeshPricer::Resolved MeshPricer::Resolve(const MeshPlan& plan) {
  const MeshShape& shape = plan.shape;
  Resolved resolved;
  resolved.stage = ranks() / shape.pipeline;
  const int64_t local = LocalBatch(shape);
  resolved.micro_batches = static_cast<int>((local + plan.micro_batch - 1) / plan.micro_batch);
  const double part = static_cast<double>(work_.sequence_length) / shape.context;
  resolved.tokens = static_cast<double>(plan.micro_batch) * part;
  resolved.mean_tokens = static_cast<double>(local) / resolved.micro_batches * part;
  const auto splits =
      parallel::Resolve(plan.sharding, shape.shard * shape.context * shape.tensor, resolved.stage);
  COHORT_CHECK(splits.ok(), "%s", splits.status().ToString().c_str());
  resolved.replicated = *splits;
  resolved.tensor = OfEvery(shape.tensor, *splits);
  resolved.expert = OfEvery(shape.expert, *splits);
  resolved.loads = &LoadsOf(shape.pipeline, plan.chunks, IsV(plan));
  for (int i = 0; i < kNumLayers; ++i) {
    if (i == static_cast<int>(Layer::kSparse) && model_.config().num_experts == 0) continue;
    resolved.layers[i] = TimesOf(static_cast<Layer>(i), plan, resolved);
  }
  return resolved;
}

MeshPrice MeshPricer::PriceResolved(const MeshPlan& plan, const Resolved& resolved) {
  MeshPrice price;
  price.micro_batches = resolved.micro_batches;
  const int pipeline = plan.shape.pipeline;
  double slowest = -1;
  for (const RankLoad& load : resolved.loads->distinct) {
    const StepMemory memory = MemoryOf(load, plan, resolved);
    if (memory.total() > price.memory.total()) price.memory = memory;
    const Slot slot = SlotOf(load.layers, plan, resolved, false);
    const Slot last = SlotOf(load.layers, plan, resolved, true);
    StepTime time;
    const double before = resolved.micro_batches - 1;
    for (const StepPart& part : kStepParts) {
      time.*part.seconds = before * slot.time.*part.seconds + last.time.*part.seconds;
    }
    time.hidden = before * slot.time.hidden + last.time.hidden;
    for (int i = 0; i < kNumLayers; ++i) {
      time.publish += load.layers[i] * resolved.layers[i].publish;
      time.optimizer += load.layers[i] * resolved.layers[i].update;
    }
    if (pipeline > 1 && model_.config().tie_word_embeddings && !IsV(plan) &&
        load.layers[static_cast<int>(Layer::kEmbedding)] + load.layers[static_cast<int>(Layer::kHead)] > 0) {
      // Once a step, the gradients of both copies: from the first stage's ranks to the last one's and back.
      const auto elements = static_cast<double>(model_.layer(Layer::kEmbedding).parameters.tensor);
      time.reductions +=
          links_.Seconds(comm::Operation::kAllReduce, {2, (pipeline - 1) * resolved.stage},
                         elements / plan.shape.tensor / resolved.tensor.optimizer * kStateBytes);
    }
    if (pipeline > 1) {
      // Filling and draining. 1F1B: every other rank's slot once. Interleaved: one of its chunks
      // (Narayanan et al., 2021, section 2.2). Zero bubble: gradients of weights fill it, on one stage a rank in part
      // (ZB-H1), in a V but for what the three thirds differ by (Qi et al., 2024, section 2.3 and 2.4).
      const double forward = slot.forward + slot.forward_messages, input = slot.input + slot.input_messages;
      double open = forward + input + slot.weight;
      if (plan.schedule == "interleaved") open /= plan.chunks;
      if (plan.schedule == "zb-h1") open = std::max(0.0, forward + input - slot.weight);
      if (plan.schedule == "zb-v") {
        open = std::max({forward, input, slot.weight}) - std::min({forward, input, slot.weight});
      }
      const double bubble =
          (pipeline - 1) * (open * resolved.loads->mean_share + 2 * plan.chunks * HopSeconds(plan, resolved));
      Settle(*resolved.loads, std::max(bubble, Lacking(*resolved.loads, time)), time);
    }
    const double total = time.total();
    if (total > slowest) slowest = total, price.time = time;
  }
  return price;
}

MeshPrice MeshPricer::Price(const MeshPlan& plan) { return PriceResolved(plan, Resolve(plan)); }

double MeshPricer::Lacking(const PipelineLoads& loads, const StepTime& time) const {
  const double computing = time.compute + time.recompute;
  return std::max(0.0, computing * loads.mean_share / cluster_.cores - (time.total() - time.optimizer));
}

void MeshPricer::Settle(const PipelineLoads& loads, double idle, StepTime& time) const {
  const double computing = time.compute + time.recompute;
  const double waits = std::clamp(computing * (loads.mean_share / cluster_.cores - 1), 0.0, idle);
  time.compute += waits;
  time.bubble = idle - waits;
}

absl::StatusOr<MeshPrice> MeshPricer::Simulate(const MeshPlan& plan) {
  const Resolved resolved = Resolve(plan);
  MeshPrice price = PriceResolved(plan, resolved);
  if (plan.shape.pipeline == 1) return price;
  pipeline::ScheduleRequest request;
  request.ranks = plan.shape.pipeline;
  request.chunks = plan.chunks;
  request.micro_batches = resolved.micro_batches;
  std::vector<SharedStage> stages;
  for (const std::array<int, kNumLayers>& layers : resolved.loads->of_stage) {
    stages.push_back(SlotOf(layers, plan, resolved, false));
    const SharedStage& stage = stages.back();
    request.costs.stages.push_back(
        {stage.forward + stage.forward_messages, stage.input + stage.input_messages, stage.weight, 1, 1});
  }
  request.costs.transfer = {0, 1, HopSeconds(plan, resolved)};
  COHORT_ASSIGN_OR_RETURN(const pipeline::Schedule schedule, pipeline::MakeSchedule(plan.schedule, request));
  const double seconds = SecondsOnSharedCores(schedule, stages, HopSeconds(plan, resolved),
                                              cluster_.cores * plan.shape.pipeline);
  // Of the rank that has most.
  std::vector<double> busy(plan.shape.pipeline);
  for (int stage = 0; stage < schedule.stages(); ++stage) {
    busy[schedule.rank_of[stage]] += resolved.micro_batches * stages[stage].total();
  }
  const RankLoad& heaviest = resolved.loads->distinct[resolved.loads->heaviest];
  price.time.compute = resolved.micro_batches * SlotOf(heaviest.layers, plan, resolved, false).time.compute;
  Settle(*resolved.loads, std::max(0.0, seconds - *std::max_element(busy.begin(), busy.end())), price.time);
  price.simulated = true;
  return price;
}

}  // namespace cohort::parallel::planner
