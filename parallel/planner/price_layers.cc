// What one layer and one slot of a pipeline cost.
#include <algorithm>
#include <cmath>
#include <optional>

#include "comm/codec/codec.h"
#include "parallel/planner/price.h"

namespace cohort::parallel::planner {
namespace {

using comm::Operation;

// AdamW reads gradient, master and both moments, and writes the last three.
constexpr double kUpdateMoves = 7;

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

}  // namespace

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
  const ParameterCount parameters = model_.ParametersOf(layer, shape.pipeline > 1);
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
  } placements[] = {{static_cast<double>(parameters.replicated), resolved.replicated, 1},
                    {static_cast<double>(parameters.tensor) / shape.tensor, resolved.tensor, shape.tensor},
                    {static_cast<double>(parameters.expert) / shape.expert, resolved.expert, shape.expert}};
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

}  // namespace cohort::parallel::planner
