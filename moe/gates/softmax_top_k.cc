// The K largest of a softmax over the experts (Shazeer et al., 2017; Mixtral, Qwen3-MoE), balanced by a loss.
#include "moe/gates/top_k.h"
#include "runtime/ops/ops.h"

namespace cohort::moe {
namespace {

using runtime::Tensor;

class SoftmaxTopK final : public Gate {
 public:
  SoftmaxTopK(int64_t k, bool normalize) : k_(k), normalize_(normalize) {}

  Choice Choose(const Tensor& logits) const override {
    const Tensor scores = Tensor::Empty(logits.device(), logits.shape(), logits.dtype());
    logits.device().ops().Softmax(logits, scores);
    return ChooseTopK(scores, {}, k_, normalize_);
  }

  Tensor Probabilities(const Choice& choice) const override { return choice.scores; }

  Tensor Backward(const Choice& choice, const Tensor& dweights, const Tensor& dprobabilities) const override {
    runtime::Device& device = dweights.device();
    const Tensor& scores = choice.scores;
    const Tensor gradient = dprobabilities.defined() ? dprobabilities.Clone()
                                                     : Tensor::Zeros(device, scores.shape(), scores.dtype());
    ChooseTopKGrad(choice, dweights, normalize_, gradient);
    device.ops().SoftmaxGrad(gradient, scores, gradient);
    return gradient;
  }

 private:
  const int64_t k_;
  const bool normalize_;
};

}  // namespace

std::unique_ptr<Gate> MakeSoftmaxTopK(const GateContext& context) {
  return std::make_unique<SoftmaxTopK>(context.config.num_experts_per_tok,
                                       context.config.router.normalize_weights);
}

}  // namespace cohort::moe
