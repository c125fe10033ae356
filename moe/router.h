// The router of one block: its weight, the gate, the auxiliary losses and the capacity.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "moe/gates/gate.h"
#include "runtime/model/feed_forward.h"

namespace cohort::moe {

// Where the tokens of a batch go. T tokens, K experts a token.
struct Routing {
  runtime::Tensor chosen;   // kI32 [T, K]: what the gate chose
  runtime::Tensor kept;     // kI32 [T, K]: the same with -1 for choices over the capacity
  runtime::Tensor weights;  // state [T, K]
  bool may_drop = false;    // whether kept may differ from chosen
};

class Router {
 public:
  struct Saved {
    runtime::Tensor x;  // float [T, D]
    Gate::Choice choice;
    runtime::Tensor dprobabilities;  // state [T, E]: of the balance loss; undefined: none
    runtime::Tensor dlogits;  // float [T, E]; before Backward: of the z-loss, state type; undefined: none
  };

  // Adds the router's parameters to the context's group. INVALID_ARGUMENT where the config names no known
  // gate.
  static absl::StatusOr<std::unique_ptr<Router>> Create(const GateContext& context);

  // Losses are computed where the input says whose tokens these are (input.batch), and so is the capacity; at
  // inference every choice is kept. saved and sums may be null. sums gets aux_loss.
  // Fails where sequences are on several ranks and communication fails.
  absl::StatusOr<Routing> Forward(const runtime::FeedForwardInput& input, Saved* saved,
                                  runtime::LossSums* sums) const;
  // dx [T, D] += the gradient through the router of dweights [T, K], the auxiliary losses' included.
  void BackwardInput(const runtime::Tensor& dweights, Saved& saved, const runtime::Tensor& dx) const;
  // After BackwardInput.
  void BackwardWeight(Saved& saved) const;
  void UpdateBalance(absl::Span<const int64_t> load) { gate_->UpdateBalance(load); }

 private:
  Router(const runtime::ModelConfig& config, std::unique_ptr<Gate> gate, runtime::Parameter* weight)
      : experts_(config.num_experts), options_(config.router), gate_(std::move(gate)), weight_(weight) {}
  absl::Status Losses(const runtime::FeedForwardInput& input, const Gate::Choice& choice,
                      const runtime::Tensor& logits, Saved* saved, runtime::LossSums* sums) const;
  // The balance loss of sequences whose tokens are on several ranks: what it counts is added up over them.
  absl::Status SplitBalanceLoss(const runtime::FeedForwardInput& input, const Gate::Choice& choice,
                                double scale, const runtime::Tensor& losses,
                                const runtime::Tensor& gradient) const;

  const int64_t experts_;
  const runtime::RouterConfig options_;
  const std::unique_ptr<Gate> gate_;
  runtime::Parameter* const weight_;  // [E, D]
};

}  // namespace cohort::moe
