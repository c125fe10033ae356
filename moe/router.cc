#include "moe/router.h"

#include <numeric>
#include <vector>

#include "comm/check.h"
#include "runtime/model/families.h"
#include "runtime/ops/ops.h"

namespace cohort::moe {

using runtime::Device;
using runtime::FeedForwardInput;
using runtime::LossSums;
using runtime::Tensor;

namespace {

double Sum(const Tensor& losses) {
  const std::vector<double> values = ToHost(losses);
  return std::accumulate(values.begin(), values.end(), 0.0);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Router>> Router::Create(const GateContext& context) {
  const runtime::ModelConfig& config = context.config;
  runtime::Parameter* weight = context.group.Add(
      runtime::FamilyOf(config).expert_names.Router(context.prefix), {config.num_experts, config.hidden_size},
      runtime::Init::kNormal, runtime::InitStddev(config), /*decay=*/true);
  COHORT_ASSIGN_OR_RETURN(auto gate, MakeGate(context));
  return std::unique_ptr<Router>(new Router(config, std::move(gate), weight));
}

absl::StatusOr<Routing> Router::Forward(const FeedForwardInput& input, Saved* saved, LossSums* sums) const {
  Device& device = input.x.device();
  const Tensor logits = Tensor::Empty(device, {input.x.dim(0), experts_}, device.state_dtype());
  device.ops().MatMul(input.x, weight_->value, logits, {.transpose_b = true});
  Gate::Choice choice = gate_->Choose(logits);
  if (input.batch != nullptr) COHORT_RETURN_IF_ERROR(Losses(input, choice, logits, saved, sums));

  Routing routing = {.chosen = choice.indices, .kept = choice.indices, .weights = choice.weights};
  if (input.batch != nullptr && options_.capacity_factor > 0) {
    routing.may_drop = true;
    routing.kept = Tensor::Empty(device, choice.indices.shape(), DataType::kI32);
    device.ops().DropOverCapacity(choice.indices, input.offsets, experts_, options_.capacity_factor,
                                  routing.kept);
  }
  if (saved != nullptr) {
    saved->x = input.x;
    saved->choice = std::move(choice);
  }
  return routing;
}

absl::Status Router::Losses(const FeedForwardInput& input, const Gate::Choice& choice, const Tensor& logits,
                            Saved* saved, LossSums* sums) const {
  Device& device = input.x.device();
  const DataType state = device.state_dtype();
  if (options_.aux_loss_coef > 0) {
    const double scale = options_.aux_loss_coef / input.scale.sequences;
    const Tensor losses = Tensor::Empty(device, {input.batch->num_sequences()}, state);
    Tensor gradient;
    if (saved != nullptr) gradient = saved->dprobabilities = Tensor::Zeros(device, logits.shape(), state);
    const runtime::SequenceGroup* whole = nullptr;
    if (input.batch->sequences == nullptr) {
      device.ops().BalanceLoss(gate_->Probabilities(choice), choice.indices, input.offsets, scale, losses,
                               gradient);
    } else {
      COHORT_RETURN_IF_ERROR(SplitBalanceLoss(input, choice, scale, losses, gradient));
      whole = input.batch->sequences.get();
    }
    if (sums != nullptr && (whole == nullptr || whole->counts())) sums->aux_loss += scale * Sum(losses);
  }
  if (options_.z_loss_coef > 0) {
    const double scale = options_.z_loss_coef / input.scale.tokens;
    const Tensor losses = Tensor::Empty(device, {logits.dim(0)}, state);
    Tensor gradient;
    if (saved != nullptr) gradient = saved->dlogits = Tensor::Zeros(device, logits.shape(), state);
    device.ops().RouterZLoss(logits, scale, losses, gradient);
    if (sums != nullptr) sums->aux_loss += scale * Sum(losses);
  }
  return absl::OkStatus();
}

absl::Status Router::SplitBalanceLoss(const FeedForwardInput& input, const Gate::Choice& choice, double scale,
                                      const Tensor& losses, const Tensor& gradient) const {
  Device& device = input.x.device();
  runtime::SequenceGroup& sequences = *input.batch->sequences;
  const int64_t count = input.batch->num_sequences();
  const Tensor both = Tensor::Empty(device, {2, count, experts_}, device.state_dtype());
  const Tensor counts = both.Row(0), probabilities = both.Row(1);
  device.ops().BalanceCounts(gate_->Probabilities(choice), choice.indices, input.offsets, counts,
                             probabilities);
  COHORT_RETURN_IF_ERROR(sequences.Sum(both));
  device.ops().BalanceLossFromCounts(counts, probabilities, sequences.lengths(), choice.indices.dim(1), scale,
                                     input.offsets, losses, gradient);
  return absl::OkStatus();
}

void Router::BackwardInput(const Tensor& dweights, Saved& saved, const Tensor& dx) const {
  Device& device = dx.device();
  Tensor dlogits = gate_->Backward(saved.choice, dweights, saved.dprobabilities);
  if (saved.dlogits.defined()) device.ops().Add(dlogits, saved.dlogits, dlogits);
  if (dlogits.dtype() != saved.x.dtype()) dlogits = dlogits.To(device, saved.x.dtype());
  device.ops().MatMul(dlogits, weight_->value, dx, {.accumulate = true});
  saved.dlogits = dlogits;
}

void Router::BackwardWeight(Saved& saved) const {
  saved.x.device().ops().MatMul(saved.dlogits, saved.x, weight_->grad,
                                {.transpose_a = true, .accumulate = true});
}

}  // namespace cohort::moe
