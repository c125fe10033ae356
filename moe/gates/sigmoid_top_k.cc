// The K largest of sigmoid scores plus a bias that is moved, not learned, so that loads even out without a
// loss (DeepSeek-V3, 2024, section 2.1.2; Wang et al., 2024). The bias takes part in the choice only.
#include <numeric>
#include <vector>

#include "moe/gates/top_k.h"
#include "runtime/model/families.h"
#include "runtime/ops/ops.h"

namespace cohort::moe {
namespace {

using runtime::Tensor;

class SigmoidTopK final : public Gate {
 public:
  SigmoidTopK(int64_t k, bool normalize, double rate, const runtime::Parameter* bias)
      : k_(k), normalize_(normalize), rate_(rate), bias_(bias) {}

  Choice Choose(const Tensor& logits) const override {
    const Tensor scores = Tensor::Empty(logits.device(), logits.shape(), logits.dtype());
    logits.device().ops().Sigmoid(logits, scores);
    return ChooseTopK(scores, bias_->value, k_, normalize_);
  }

  // The scores as shares of their sum, as in the sequence-wise loss of DeepSeek-V3.
  Tensor Probabilities(const Choice& choice) const override {
    const Tensor& scores = choice.scores;
    const Tensor shares = Tensor::Empty(scores.device(), scores.shape(), scores.dtype());
    scores.device().ops().NormalizeRows(scores, shares);
    return shares;
  }

  Tensor Backward(const Choice& choice, const Tensor& dweights, const Tensor& dprobabilities) const override {
    runtime::Device& device = dweights.device();
    const Tensor& scores = choice.scores;
    const Tensor gradient = Tensor::Zeros(device, scores.shape(), scores.dtype());
    if (dprobabilities.defined()) {
      device.ops().NormalizeRowsGrad(dprobabilities, scores, Probabilities(choice), gradient);
    }
    ChooseTopKGrad(choice, dweights, normalize_, gradient);
    device.ops().SigmoidGrad(gradient, scores, gradient);
    return gradient;
  }

  // b += delta - mean(delta), delta[e] = rate sign(mean load - load[e]).
  void UpdateBalance(absl::Span<const int64_t> load) override {
    const int64_t experts = static_cast<int64_t>(load.size());
    const int64_t total = std::accumulate(load.begin(), load.end(), int64_t{0});
    std::vector<double> delta(load.size());
    double mean = 0;
    for (int64_t e = 0; e < experts; ++e) {
      const int64_t below = total - load[e] * experts;  // the sign of mean - load, in whole numbers
      delta[e] = rate_ * static_cast<double>((below > 0) - (below < 0));
      mean += delta[e] / static_cast<double>(experts);
    }
    for (double& d : delta) d -= mean;
    const Tensor& bias = bias_->value;
    bias.device().ops().Accumulate(Tensor::FromHost(bias.device(), bias.shape(), bias.dtype(), delta), 1,
                                   bias);
  }

 private:
  const int64_t k_;
  const bool normalize_;
  const double rate_;
  const runtime::Parameter* const bias_;
};

}  // namespace

std::unique_ptr<Gate> MakeSigmoidTopK(const GateContext& context) {
  const runtime::ModelConfig& config = context.config;
  const runtime::Parameter* bias = context.group.AddBuffer(
      runtime::FamilyOf(config).expert_names.RouterBias(context.prefix), {config.num_experts});
  return std::make_unique<SigmoidTopK>(config.num_experts_per_tok, config.router.normalize_weights,
                                       config.router.bias_update_rate, bias);
}

}  // namespace cohort::moe
