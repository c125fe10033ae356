#include "parallel/planner/price.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "absl/strings/str_cat.h"
#include "comm/check.h"
#include "comm/codec/codec.h"
#include "parallel/pipeline/balance.h"
#include "parallel/pipeline/schedules/schedules.h"

namespace cohort::parallel::planner {
namespace {

using comm::Operation;

constexpr StepPart kStepParts[] = {
#define COHORT_X(field, name, meaning) {name, meaning, &StepTime::field},
    COHORT_STEP_PARTS(COHORT_X)
#undef COHORT_X
};

constexpr double kStateBytes = 4;
// AdamW reads gradient, master and both moments, and writes the last three.
constexpr double kUpdateMoves = 7;

bool IsV(const MeshPlan& plan) { return plan.schedule == "zb-v"; }

// Bytes on the wire of an element that has `bytes`.
double OnWire(const std::optional<comm::CodecKind>& codec, double bytes) {
  if (!codec.has_value()) return bytes;
  constexpr size_t kMany = 1 << 20;
  return static_cast<double>(comm::GetCodec(*codec).EncodedBytes(kMany)) / kMany;
}

// The level that holds what the backward gathers from.
int BackwardLevel(const Splits& splits) {
  return splits.keeps_secondary() ? splits.secondary : splits.parameters;
}

absl::Status Illegal(auto&&... parts) { return absl::InvalidArgumentError(absl::StrCat(parts...)); }

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
  const int64_t data = ranks() / shape.pipeline / shape.tensor / shape.context;
  return (work_.global_batch + data - 1) / data;
}

absl::Status MeshPricer::Check(const MeshPlan& plan) const {
  const MeshShape& shape = plan.shape;
  const runtime::ModelConfig& config = model_.config();
  const int64_t used = static_cast<int64_t>(shape.pipeline) * shape.shard * shape.context * shape.tensor;
  if (ranks() % used != 0) {
    return Illegal("axes that do not divide the ranks: ", shape.DebugString(), " are ", used, " of ",
                   ranks());
  }
  const int stage = ranks() / shape.pipeline;
  if (stage % shape.expert != 0) {
    return Illegal("experts that do not divide a stage: expert ", shape.expert, " of ", stage, " ranks");
  }
  if (shape.expert > 1 && (config.num_experts == 0 || config.num_experts % shape.expert != 0)) {
    return Illegal("experts that do not divide: ", config.num_experts, " over ", shape.expert, " ranks");
  }
  if (config.num_attention_heads % shape.tensor != 0 || config.num_key_value_heads % shape.tensor != 0) {
    return Illegal("heads that do not divide: ", config.num_attention_heads, " and ",
                   config.num_key_value_heads, " key/value heads over ", shape.tensor, " tensor ranks");
  }
  if (shape.pipeline * plan.chunks > model_.blocks()) {
    return Illegal("more stages than blocks: ", shape.pipeline * plan.chunks, " of ", model_.blocks());
  }
  if (shape.pipeline > 1 && config.tie_word_embeddings) {
    return Illegal("tied embeddings need the first and the last layers in one stage: pipeline ",
                   shape.pipeline);
  }
  if (shape.tensor * shape.context > 1 && config.num_experts > 0 && config.router.capacity_factor > 0) {
    return Illegal("a capacity of experts, which is of whole sequences: context ", shape.context, ", tensor ",
                   shape.tensor);
  }
  // Zigzag: two pieces of a sequence a rank.
  if (shape.context > 1 && work_.sequence_length < int64_t{2} * shape.context) {
    return Illegal("sequences too short for the context axis: ", work_.sequence_length, " tokens over ",
                   shape.context, " ranks");
  }
  if (plan.micro_batch < 1 || plan.micro_batch > LocalBatch(shape)) {
    return Illegal("micro-batches larger than a rank's share: ", plan.micro_batch, " of ", LocalBatch(shape),
                   " sequences");
  }
  const absl::Status levels =
      parallel::Resolve(plan.sharding, shape.shard * shape.context * shape.tensor, stage).status();
  return levels.ok() ? levels : Illegal("shardings that are not legal: ", levels.message());
}

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

// Along the chain of levels that differ, from the coarse to the fine one or back; `bytes` at level 1.
double MeshPricer::Moves(Operation operation, const Splits& splits, int stride, int coarse, int fine,
                         double bytes) {
  if (coarse >= fine || bytes <= 0) return 0;
  int chain[] = {1, splits.parameters, splits.secondary, splits.gradients, splits.optimizer, splits.replicas};
  std::sort(std::begin(chain), std::end(chain));
  double seconds = 0;
  for (size_t i = 1; i < std::size(chain); ++i) {
    const int from = chain[i - 1], to = chain[i];
    if (from == to || from < coarse || to > fine) continue;
    seconds += links_.Seconds(operation, {to / from, stride * from}, bytes / from);
  }
  return seconds;
}

double MeshPricer::HopSeconds(const MeshPlan& plan, const Resolved& resolved) const {
  const double bytes = resolved.mean_tokens / plan.shape.tensor *
                       static_cast<double>(model_.config().hidden_size) * work_.compute_bytes;
  return links_.Send({plan.shape.pipeline, resolved.stage}, bytes) +
         cluster_.Meeting(cluster_.drift_after);  // a stage's micro-batch is long
}

LayerSeconds MeshPricer::ComputingOf(Layer layer, const MeshPlan& plan, double tokens) const {
  const LayerCost& cost = model_.layer(layer);
  const double per_token = 1 / (cluster_.flops * plan.shape.tensor);
  const std::optional<LayerSeconds> measured =
      cluster_.layers.Of(layer, plan.shape.tensor, plan.shape.expert, tokens);
  if (!measured.has_value()) {
    const double forward = cost.flops() * tokens * per_token;
    // The head's backward is a part of its forward.
    return layer == Layer::kHead ? LayerSeconds{3 * forward, 0} : LayerSeconds{forward, 2 * forward};
  }
  // It was measured with sequences of so many tokens at most: what longer ones look back on besides.
  const double length = static_cast<double>(work_.sequence_length);
  const double more = cost.attention_flops * std::max(0.0, 1 - tokens / length) * tokens * per_token;
  return {measured->forward + more, measured->backward + 2 * more};
}

MeshPricer::LayerCosts MeshPricer::TimesOf(Layer layer, const MeshPlan& plan, const Resolved& resolved) {
  const MeshShape& shape = plan.shape;
  const runtime::ModelConfig& config = model_.config();
  const LayerCost& cost = model_.layer(layer);
  const double tokens = resolved.mean_tokens, rows = tokens / shape.tensor;
  const double compute_bytes = work_.compute_bytes;
  const double stream = tokens * static_cast<double>(config.hidden_size) * compute_bytes;
  const bool block = layer == Layer::kDense || layer == Layer::kSparse;
  LayerCosts times;
  const LayerSeconds computing = ComputingOf(layer, plan, tokens);
  // Pipelines are priced by what ranks compute with a core for themselves; elsewhere all compute at once.
  const double shared = shape.pipeline == 1 ? 1 / cluster_.cores : 1;
  times.forward = computing.forward * shared;
  times.backward = computing.backward * shared;

  // A forward at this rank's part of the cores.
  const double at_once = computing.forward / cluster_.cores;
  if (shape.tensor > 1) {
    const GroupShape group{shape.tensor, 1};
    // Four times in a dense block's forward.
    const double meeting = cluster_.Meeting(at_once / 4);
    const double gather = links_.Seconds(Operation::kAllGather, group, stream) + meeting;
    const double scatter = links_.Seconds(Operation::kReduceScatter, group, stream) + meeting;
    // Around attention and around a dense feed-forward; a sparse one takes the rows as they are.
    const double pairs = layer == Layer::kDense ? 2 : layer == Layer::kSparse ? 1 : 0;
    times.tensor_forward = times.tensor_backward = pairs * (gather + scatter);
    if (layer == Layer::kEmbedding) times.tensor_forward = scatter, times.tensor_backward = gather;
    if (layer == Layer::kHead) {
      times.tensor_forward =
          gather + links_.Seconds(Operation::kAllReduce, group, tokens * shape.tensor * kStateBytes);
      times.tensor_backward = scatter;
    }
  }
  if (shape.context > 1 && block) {
    // A ring: keys and values go round; their gradients, in the state type, with them in the backward.
    const double elements =
        tokens * 2 * static_cast<double>(config.num_key_value_heads * config.head_dim) / shape.tensor;
    const GroupShape ring{shape.context, shape.tensor};
    const double step =
        cost.attention_flops * rows / cluster_.flops * shared / shape.context * cluster_.overlap;
    const double there = links_.Send(ring, elements * compute_bytes);
    const double back = links_.Send(ring, elements * (compute_bytes + kStateBytes));
    const double steps = shape.context - 1;
    const double forward_meeting = cluster_.Meeting(at_once / shape.context);
    const double backward_meeting = cluster_.Meeting(2 * at_once / shape.context);
    times.context_forward = steps * (std::max(0.0, there - step) + forward_meeting);
    times.context_backward = steps * (std::max(0.0, back - 2 * step) + backward_meeting);
    times.context_hidden = steps * (std::min(there, step) + std::min(back, 2 * step));
  }
  if (shape.expert > 1 && layer == Layer::kSparse) {
    const double sent =
        rows * static_cast<double>(config.num_experts_per_tok * config.hidden_size) * compute_bytes;
    const double exchange = links_.Seconds(Operation::kAllToAll, {shape.expert, 1}, sent) + cluster_.meeting;
    times.expert_forward = times.expert_backward = 2 * exchange;
  }
  const struct {
    double elements;
    const Splits& splits;
    int stride;
  } placements[] = {
      {static_cast<double>(cost.parameters.replicated), resolved.replicated, 1},
      {static_cast<double>(cost.parameters.tensor) / shape.tensor, resolved.tensor, shape.tensor},
      {static_cast<double>(cost.parameters.expert) / shape.expert, resolved.expert, shape.expert}};
  for (const auto& [elements, splits, stride] : placements) {
    const double gathered = elements * OnWire(plan.sharding.gather_codec, compute_bytes);
    const double reduced = elements * OnWire(plan.sharding.reduce_codec, kStateBytes);
    times.gather_forward += Moves(Operation::kAllGather, splits, stride, 1, splits.parameters, gathered);
    times.gather_backward += Moves(Operation::kAllGather, splits, stride, 1, BackwardLevel(splits), gathered);
    times.reduce += Moves(Operation::kReduceScatter, splits, stride, 1, splits.gradients, reduced);
    times.reduce_last +=
        Moves(Operation::kReduceScatter, splits, stride, splits.gradients, splits.optimizer, reduced);
    const int beyond = splits.replicas / splits.optimizer;
    times.reduce_last += links_.Seconds(Operation::kAllReduce, {beyond, stride * splits.optimizer},
                                        elements / splits.optimizer * kStateBytes);
    times.publish += Moves(Operation::kAllGather, splits, stride, splits.parameters, splits.optimizer,
                           elements * compute_bytes);
    const double update = cluster_.update_seconds > 0
                              ? cluster_.update_seconds
                              : kUpdateMoves * kStateBytes * cluster_.machine.local_seconds_per_byte;
    times.update += elements / splits.optimizer * update / cluster_.cores;
  }
  return times;
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

MeshPricer::Slot MeshPricer::SlotOf(const std::array<int, kNumLayers>& layers, const MeshPlan& plan,
                                    const Resolved& resolved, bool last) const {
  Slot slot;
  double gathers = 0, reductions = 0, messages = 0;  // exposed, exposed, all
  double first_gather = 0, last_reduction = 0;       // which nothing hides
  for (int i = 0; i < kNumLayers; ++i) {
    const double number = layers[i];
    if (number == 0) continue;
    const LayerCosts& times = resolved.layers[i];
    const bool block = i == static_cast<int>(Layer::kDense) || i == static_cast<int>(Layer::kSparse);
    const double again = plan.recompute && block ? 1 : 0;
    slot.time.compute += number * (times.forward + times.backward);
    slot.time.recompute += number * again * times.forward;
    slot.time.tensor += number * (times.tensor_forward * (1 + again) + times.tensor_backward);
    slot.time.context += number * (times.context_forward * (1 + again) + times.context_backward);
    slot.time.expert += number * (times.expert_forward * (1 + again) + times.expert_backward);
    slot.time.hidden += number * times.context_hidden;
    // Gathered one layer ahead, reduced one layer behind: each hides behind one layer's computing.
    const double hides = cluster_.overlap * times.forward;
    const double hides_back = cluster_.overlap * (times.backward + again * times.forward);
    const double reduce = times.reduce + (last ? times.reduce_last : 0);
    const double gather_exposed = std::max(0.0, times.gather_forward - hides);
    const double back_exposed = std::max(0.0, times.gather_backward + reduce - hides_back);
    const double back = times.gather_backward + reduce;
    const double of_gather = back > 0 ? times.gather_backward / back : 0;
    gathers += number * (gather_exposed + back_exposed * of_gather);
    reductions += number * back_exposed * (1 - of_gather);
    messages += number * (times.gather_forward + back);
    first_gather = std::max(first_gather, std::min(times.gather_forward, hides));
    last_reduction = std::max(last_reduction, std::min(reduce, hides_back));
    const double forward_messages = times.tensor_forward + times.context_forward + times.expert_forward;
    slot.forward += number * times.forward;
    slot.input += number * (times.backward / 2 + again * times.forward);
    slot.weight += number * times.backward / 2;
    slot.forward_messages += number * (forward_messages + gather_exposed);
    slot.input_messages += number * (times.tensor_backward + times.context_backward + times.expert_backward +
                                     back_exposed + again * forward_messages);
  }
  slot.time.gathers = gathers + first_gather;
  slot.time.reductions = reductions + last_reduction;
  slot.forward_messages += first_gather;
  slot.input_messages += last_reduction;
  slot.time.hidden += messages - slot.time.gathers - slot.time.reductions;
  return slot;
}

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
    const ParameterCount& count = model_.layer(layer).parameters;
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
