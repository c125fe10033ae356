// The optimizer: its state beside the slices of a Trainable, and one step over all of them.
#pragma once

#include <cstdint>
#include <vector>

#include "runtime/tensor.h"
#include "runtime/train/trainable.h"

namespace cohort::runtime {

// First and second moments of AdamW, state type, one tensor a slice, in the slices' order.
struct OptimizerState {
  std::vector<Tensor> m, v;
  int64_t step = 0;  // updates made so far

  // Zeros for these slices.
  static OptimizerState For(const std::vector<OptimizerSlice>& slices);
};

struct AdamWSettings {
  double beta1 = 0.9;
  double beta2 = 0.95;
  double eps = 1e-8;
  double weight_decay = 0.1;  // of slices with decay
};

// What the gradients are multiplied by so that their norm is at most `limit` (0: never clipped).
double ClipFactor(double norm, double limit);

// One AdamW update of every slice; increments state.step.
void AdamWStep(const std::vector<OptimizerSlice>& slices, const AdamWSettings& settings, double lr,
               double grad_scale, OptimizerState& state);

}  // namespace cohort::runtime
