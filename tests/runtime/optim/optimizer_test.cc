#include "runtime/optim/optimizer.h"

#include <cmath>

#include "gtest/gtest.h"

namespace cohort::runtime {
namespace {

TEST(ClipFactorTest, ScalesOnlyWhatIsAboveTheLimit) {
  EXPECT_EQ(ClipFactor(0.5, 1.0), 1.0);
  EXPECT_EQ(ClipFactor(4.0, 1.0), 0.25);
  EXPECT_EQ(ClipFactor(4.0, 0.0), 1.0);
}

// Three steps against the published update (Loshchilov & Hutter, 2019, algorithm 2) in doubles.
TEST(AdamWStepTest, FollowsThePublishedUpdate) {
  Device& device = ReferenceDevice();
  const std::vector<double> start = {1.0, -2.0, 0.5, 0.0}, grads = {0.1, -0.2, 3.0, 0.0};
  std::vector<OptimizerSlice> slices;
  for (bool decay : {true, false}) {
    OptimizerSlice slice;
    slice.name = decay ? "decayed" : "plain";
    slice.master = Tensor::FromHost(device, {4}, DataType::kF64, start);
    slice.grad = Tensor::FromHost(device, {4}, DataType::kF64, grads);
    slice.decay = decay;
    slices.push_back(slice);
  }
  OptimizerState state = OptimizerState::For(slices);
  const AdamWSettings settings{.beta1 = 0.9, .beta2 = 0.99, .eps = 1e-8, .weight_decay = 0.1};
  const double lr = 0.01, scale = 0.5;
  for (int i = 0; i < 3; ++i) AdamWStep(slices, settings, lr, scale, state);
  EXPECT_EQ(state.step, 3);
  for (size_t s = 0; s < slices.size(); ++s) {
    const std::vector<double> got = ToHost(slices[s].master);
    for (size_t i = 0; i < start.size(); ++i) {
      double x = start[i], m = 0, v = 0;
      for (int t = 1; t <= 3; ++t) {
        const double g = grads[i] * scale;
        m = 0.9 * m + 0.1 * g;
        v = 0.99 * v + 0.01 * g * g;
        const double update = (m / (1 - std::pow(0.9, t))) / (std::sqrt(v / (1 - std::pow(0.99, t))) + 1e-8);
        x -= lr * (update + (slices[s].decay ? 0.1 * x : 0.0));
      }
      EXPECT_NEAR(got[i], x, 1e-12) << slices[s].name << "[" << i << "]";
    }
  }
}

}  // namespace
}  // namespace cohort::runtime
