#include "moe/gates/top_k.h"

#include "runtime/ops/ops.h"

namespace cohort::moe {

using runtime::Tensor;

Gate::Choice ChooseTopK(const Tensor& scores, const Tensor& bias, int64_t k, bool normalize) {
  runtime::Device& device = scores.device();
  runtime::Ops& ops = device.ops();
  const int64_t tokens = scores.dim(0);
  Gate::Choice choice;
  choice.scores = scores;
  choice.indices = Tensor::Empty(device, {tokens, k}, DataType::kI32);
  ops.TopK(scores, bias, choice.indices);
  choice.picked = Tensor::Empty(device, {tokens, k}, scores.dtype());
  ops.GatherColumns(scores, choice.indices, choice.picked);
  choice.weights = choice.picked;
  if (normalize) {
    choice.weights = Tensor::Empty(device, {tokens, k}, scores.dtype());
    ops.NormalizeRows(choice.picked, choice.weights);
  }
  return choice;
}

void ChooseTopKGrad(const Gate::Choice& choice, const Tensor& dweights, bool normalize,
                    const Tensor& dscores) {
  runtime::Ops& ops = dscores.device().ops();
  Tensor dpicked = dweights;
  if (normalize) {
    dpicked = Tensor::Empty(dscores.device(), dweights.shape(), dweights.dtype());
    ops.NormalizeRowsGrad(dweights, choice.picked, choice.weights, dpicked);
  }
  ops.GatherColumnsGrad(dpicked, choice.indices, dscores);
}

}  // namespace cohort::moe
