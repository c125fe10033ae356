#include "runtime/optim/optimizer.h"

#include "comm/check.h"
#include "runtime/ops/ops.h"

namespace cohort::runtime {

OptimizerState OptimizerState::For(const std::vector<OptimizerSlice>& slices) {
  OptimizerState state;
  for (const OptimizerSlice& slice : slices) {
    state.m.push_back(Tensor::Zeros(slice.master.device(), slice.master.shape(), slice.master.dtype()));
    state.v.push_back(Tensor::Zeros(slice.master.device(), slice.master.shape(), slice.master.dtype()));
  }
  return state;
}

double ClipFactor(double norm, double limit) { return limit > 0 && norm > limit ? limit / norm : 1.0; }

void AdamWStep(const std::vector<OptimizerSlice>& slices, const AdamWSettings& settings, double lr,
               double grad_scale, OptimizerState& state) {
  COHORT_CHECK(state.m.size() == slices.size(), "optimizer state of %zu slices for %zu", state.m.size(),
               slices.size());
  ++state.step;
  for (size_t i = 0; i < slices.size(); ++i) {
    const OptimizerSlice& slice = slices[i];
    const AdamWOptions options{.lr = lr,
                               .beta1 = settings.beta1,
                               .beta2 = settings.beta2,
                               .eps = settings.eps,
                               .weight_decay = slice.decay ? settings.weight_decay : 0.0,
                               .step = state.step,
                               .grad_scale = grad_scale};
    slice.master.device().ops().AdamW(slice.master, slice.grad, state.m[i], state.v[i], slice.value, options);
  }
}

}  // namespace cohort::runtime
