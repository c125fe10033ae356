// Forward: the router chooses; choices are sorted by expert, their rows go to the experts' ranks, through the
// experts, back, and are summed by weight for each token. The backward goes the same way in reverse, with the
// same exchange: the gradient of a dispatch is a combine, and the other way round.
#include "moe/moe_layer.h"

#include <optional>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "comm/check.h"
#include "moe/dispatch/token_exchange.h"
#include "moe/experts.h"
#include "moe/router.h"
#include "runtime/model/families.h"
#include "runtime/model/mlp.h"
#include "runtime/ops/ops.h"

namespace cohort::moe {
namespace {

using runtime::FeedForwardInput;
using runtime::LossSums;
using runtime::ModelConfig;
using runtime::Tensor;

struct MoeSaved final : runtime::FeedForward::Saved {
  Router::Saved router;
  Tensor weights;  // state [T, K]
  Tensor places;   // kI32 [T, K]: where each choice lies among the sorted rows; -1: dropped
  std::optional<TokenExchange> exchange;
  Experts::Saved experts;
  Tensor outputs;  // [sorted rows, D]: what the experts made of this rank's rows
  std::unique_ptr<runtime::FeedForward::Saved> shared;
};

// rows[places[t, j]] = x[t]: a copy of a token for each of its choices.
Tensor SpreadRows(const Tensor& x, const Tensor& places, int64_t rows) {
  const Tensor spread = Tensor::Empty(x.device(), {rows, x.dim(1)}, x.dtype());
  x.device().ops().CombineRowsGrad(x, /*x=*/spread, places, /*weights=*/{}, spread, /*dweights=*/{});
  return spread;
}

class MoeLayer final : public runtime::FeedForward {
 public:
  MoeLayer(std::shared_ptr<const ExpertGroup> ranks, int64_t num_experts, std::unique_ptr<Router> router,
           Experts experts, std::unique_ptr<runtime::Mlp> shared)
      : ranks_(std::move(ranks)),
        num_experts_(num_experts),
        router_(std::move(router)),
        experts_(std::move(experts)),
        shared_(std::move(shared)) {}

  bool divided() const override { return false; }
  // Other ranks are told on the host how many rows come.
  bool only_enqueues() const override { return ranks_->size() == 1; }

  absl::StatusOr<Tensor> Forward(const FeedForwardInput& input, std::unique_ptr<Saved>* saved,
                                 LossSums* sums) override {
    runtime::Device& device = input.x.device();
    std::unique_ptr<MoeSaved> kept = saved == nullptr ? nullptr : std::make_unique<MoeSaved>();
    LossSums losses;
    COHORT_ASSIGN_OR_RETURN(const Routing routing,
                            router_->Forward(input, kept == nullptr ? nullptr : &kept->router,
                                             sums == nullptr ? nullptr : &losses));
    if (sums != nullptr) {
      sums->aux_loss += losses.aux_loss;
      sums->block_aux_losses.push_back(losses.aux_loss);
    }

    const Tensor offsets = Tensor::Empty(device, {num_experts_ + 1}, DataType::kI32);
    const Tensor order = Tensor::Empty(device, {routing.kept.size()}, DataType::kI32);
    const Tensor places = Tensor::Empty(device, routing.kept.shape(), DataType::kI32);
    device.ops().SortByExpert(routing.kept, offsets, order, places);
    std::optional<int64_t> rows_of_all;
    if (!routing.may_drop) rows_of_all = routing.kept.size();
    COHORT_ASSIGN_OR_RETURN(TokenExchange exchange, TokenExchange::Create(*ranks_, offsets, rows_of_all));
    RowsInFlight rows = exchange.StartToExperts(SpreadRows(input.x, places, exchange.sorted_rows()));

    // What needs no other rank is computed while the rows travel.
    Tensor shared;
    if (sums != nullptr) CountLoad(routing, exchange, *sums);
    if (shared_ != nullptr) {
      COHORT_ASSIGN_OR_RETURN(shared,
                              shared_->Forward(input, kept == nullptr ? nullptr : &kept->shared, nullptr));
    }
    COHORT_ASSIGN_OR_RETURN(const Tensor x, exchange.FinishToExperts(std::move(rows)));
    const Tensor y = experts_.Forward(x, exchange.runs(), kept == nullptr ? nullptr : &kept->experts);
    COHORT_ASSIGN_OR_RETURN(const Tensor outputs, exchange.FinishFromExperts(exchange.StartFromExperts(y)));

    const Tensor combined = Tensor::Empty(device, input.x.shape(), input.x.dtype());
    device.ops().CombineRows(outputs, places, routing.weights, combined);
    if (shared.defined()) device.ops().Add(combined, shared, combined);
    if (kept != nullptr) {
      kept->weights = routing.weights;
      kept->places = places;
      kept->exchange = std::move(exchange);
      kept->outputs = outputs;
      *saved = std::move(kept);
    }
    return combined;
  }

  absl::StatusOr<Tensor> BackwardInput(const Tensor& dy, Saved& saved, const runtime::Meanwhile&) override {
    auto& kept = static_cast<MoeSaved&>(saved);
    runtime::Device& device = dy.device();
    const TokenExchange& exchange = *kept.exchange;
    // The combine: each choice's output gets its token's gradient times its weight.
    const Tensor doutputs = Tensor::Empty(device, kept.outputs.shape(), dy.dtype());
    const Tensor dweights = Tensor::Empty(device, kept.weights.shape(), kept.weights.dtype());
    device.ops().CombineRowsGrad(dy, kept.outputs, kept.places, kept.weights, doutputs, dweights);
    RowsInFlight rows = exchange.StartToExperts(doutputs);
    Tensor shared;
    if (shared_ != nullptr) {
      COHORT_ASSIGN_OR_RETURN(shared, shared_->BackwardInput(dy, *kept.shared, {}));
    }
    COHORT_ASSIGN_OR_RETURN(const Tensor dexpert, exchange.FinishToExperts(std::move(rows)));
    const Tensor dx_by_expert = experts_.BackwardInput(dexpert, kept.experts);
    COHORT_ASSIGN_OR_RETURN(const Tensor dx_sorted,
                            exchange.FinishFromExperts(exchange.StartFromExperts(dx_by_expert)));
    // The dispatch: a token's gradient is the sum over its choices.
    const Tensor dx = Tensor::Empty(device, dy.shape(), dy.dtype());
    device.ops().CombineRows(dx_sorted, kept.places, /*weights=*/{}, dx);
    router_->BackwardInput(dweights, kept.router, dx);
    if (shared.defined()) device.ops().Add(dx, shared, dx);
    kept.outputs = Tensor();
    return dx;
  }

  void BackwardWeight(Saved& saved, const runtime::Meanwhile&) override {
    auto& kept = static_cast<MoeSaved&>(saved);
    experts_.BackwardWeight(kept.experts);
    router_->BackwardWeight(kept.router);
    if (shared_ != nullptr) shared_->BackwardWeight(*kept.shared, {});
    kept = MoeSaved();
  }

  void UpdateBalance(const std::vector<int64_t>& load) override { router_->UpdateBalance(load); }

 private:
  // Every choice counts for the load, also one that found no room.
  void CountLoad(const Routing& routing, const TokenExchange& exchange, LossSums& sums) const {
    std::vector<int64_t> load(num_experts_, 0);
    for (const int32_t expert : HostIndices(routing.chosen)) ++load[expert];
    sums.expert_load.push_back(std::move(load));
    sums.dropped += routing.chosen.size() - exchange.sorted_rows();
  }

  const std::shared_ptr<const ExpertGroup> ranks_;
  const int64_t num_experts_;
  const std::unique_ptr<Router> router_;
  const Experts experts_;
  const std::unique_ptr<runtime::Mlp> shared_;
};

absl::StatusOr<std::unique_ptr<runtime::FeedForward>> MakeMoeLayer(std::shared_ptr<const ExpertGroup> ranks,
                                                                   const ModelConfig& config,
                                                                   const std::string& prefix,
                                                                   runtime::Device& device,
                                                                   runtime::ParameterGroup& group) {
  if (config.num_experts % ranks->size() != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(config.num_experts, " experts cannot be divided evenly over ", ranks->size(),
                     " ranks (parallel.expert); choose a number of ranks that divides num_experts"));
  }
  COHORT_ASSIGN_OR_RETURN(auto router, Router::Create({config, prefix, device, group}));
  Experts experts(config, prefix, *ranks, group);
  std::unique_ptr<runtime::Mlp> shared;
  if (config.shared_expert_intermediate_size > 0) {
    shared = std::make_unique<runtime::Mlp>(
        config, runtime::FamilyOf(config).expert_names.SharedPrefix(prefix),
        config.shared_expert_intermediate_size, runtime::WholeTensors(), group);
  }
  return std::make_unique<MoeLayer>(std::move(ranks), config.num_experts, std::move(router),
                                    std::move(experts), std::move(shared));
}

}  // namespace

runtime::FeedForwardFactory MakeMoeFactory(std::shared_ptr<const ExpertGroup> ranks) {
  return
      [ranks = std::move(ranks)](const ModelConfig& config, int layer, const std::string& prefix,
                                 runtime::Device& device, DataType compute, runtime::ParameterGroup& group) {
        return MakeMoeLayer(ranks, config, prefix, device, group);
      };
}

}  // namespace cohort::moe
