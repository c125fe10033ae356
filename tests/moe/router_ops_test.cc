// The router's operations: the reference against known values and central differences,
// the CPU against the reference.
#include <gtest/gtest.h>

#include <cmath>

#include "runtime/ops/capacity.h"
#include "tests/moe/numeric.h"
#include "tests/support/ranks.h"

namespace cohort::moe {
namespace {

using runtime::CpuDevice;
using runtime::Device;
using runtime::ReferenceDevice;
using runtime::Tensor;

Tensor Indices(Device& device, runtime::Shape shape, const std::vector<int32_t>& values) {
  return Tensor::FromHost(device, std::move(shape), absl::MakeConstSpan(values));
}

// Rows that sum to one.
Tensor Probabilities(int64_t tokens, int64_t experts, uint64_t seed) {
  const Tensor x = Random({tokens, experts}, seed);
  ReferenceDevice().ops().Softmax(x, x);
  return x;
}

// Every token's choices: distinct, some experts far more often than others.
std::vector<int32_t> Choices(int64_t tokens, int64_t k, int64_t experts) {
  std::vector<int32_t> choices;
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t j = 0; j < k; ++j) choices.push_back(static_cast<int32_t>(((t * t) / 3 + j) % experts));
  }
  return choices;
}

TEST(BalanceLoss, IsOneWhereBalancedAndTheNumberOfExpertsWhereAllGoToOne) {
  Device& device = ReferenceDevice();
  const Tensor even = Tensor::FromHost(device, {4, 4}, DataType::kF64, std::vector<double>(16, 0.25));
  const Tensor losses = Tensor::Empty(device, {3}, DataType::kF64);
  // Sequences of four tokens, none and none.
  const Tensor offsets = Indices(device, {4}, {0, 4, 4, 4});
  device.ops().BalanceLoss(even, Indices(device, {4, 1}, {0, 1, 2, 3}), offsets, 1, losses, {});
  EXPECT_EQ(ToHost(losses), (std::vector<double>{1, 0, 0}));
  const Tensor one =
      Tensor::FromHost(device, {4, 4}, DataType::kF64, {1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0});
  device.ops().BalanceLoss(one, Indices(device, {4, 1}, {0, 0, 0, 0}), offsets, 1, losses, {});
  EXPECT_EQ(ToHost(losses), (std::vector<double>{4, 0, 0}));
}

TEST(BalanceLoss, GradientMatchesCentralDifferences) {
  Device& device = ReferenceDevice();
  const Tensor probs = Probabilities(7, 5, 1), indices = Indices(device, {7, 2}, Choices(7, 2, 5));
  const Tensor offsets = Indices(device, {4}, {0, 4, 4, 7});
  const Tensor losses = Tensor::Empty(device, {3}, DataType::kF64);
  const Tensor gradient = Tensor::Zeros(device, {7, 5}, DataType::kF64);
  const auto loss = [&] {
    device.ops().BalanceLoss(probs, indices, offsets, 1, losses, {});
    const auto values = ToHost(losses);
    return 0.7 * (values[0] + values[1] + values[2]);
  };
  device.ops().BalanceLoss(probs, indices, offsets, 0.7, losses, gradient);
  const std::vector<double> expected = NumericalGradient(probs, loss);
  for (size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(gradient.data<double>()[i], expected[i], 1e-9);
}

TEST(RouterZLoss, GradientMatchesCentralDifferencesAndAddsUp) {
  Device& device = ReferenceDevice();
  const Tensor logits = Random({6, 5}, 2, 2), losses = Tensor::Empty(device, {6}, DataType::kF64);
  const Tensor gradient = Tensor::Zeros(device, {6, 5}, DataType::kF64);
  const auto loss = [&] {
    device.ops().RouterZLoss(logits, 1, losses, {});
    double sum = 0;
    for (const double value : ToHost(losses)) sum += 0.3 * value;
    return sum;
  };
  device.ops().RouterZLoss(logits, 0.3, losses, gradient);
  const std::vector<double> expected = NumericalGradient(logits, loss);
  for (size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(gradient.data<double>()[i], expected[i], 1e-8);
  device.ops().RouterZLoss(logits, 0.3, losses, gradient);
  for (size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(gradient.data<double>()[i], 2 * expected[i], 2e-8);
}

TEST(DropOverCapacity, KeepsTheEarlierTokensOfEachSequence) {
  Device& device = ReferenceDevice();
  // Two sequences of 4 and 3 tokens, 2 choices, 4 experts: capacities ceil(8 / 4) = 2 and ceil(6 / 4) = 2.
  const Tensor indices = Indices(device, {7, 2}, {0, 1, 0, 1, 0, 2, 3, 0, /*second*/ 0, 1, 0, 2, 2, 0});
  const Tensor kept = Tensor::Empty(device, {7, 2}, DataType::kI32);
  device.ops().DropOverCapacity(indices, Indices(device, {3}, {0, 4, 7}), 4, 1.0, kept);
  EXPECT_EQ(ToHost(kept), (std::vector<double>{0, 1, 0, 1, -1, 2, 3, -1, 0, 1, 0, 2, 2, -1}));
}

TEST(DropOverCapacity, RoundsUp) {
  EXPECT_EQ(runtime::ExpertCapacity(1.25, 8, 2, 4), 5);
  EXPECT_EQ(runtime::ExpertCapacity(1.3, 8, 2, 4), 6);
  EXPECT_EQ(runtime::ExpertCapacity(1.1, 10, 1, 1), 11);  // 1.1 x 10 is a little more than 11 in binary
  EXPECT_EQ(runtime::ExpertCapacity(0.1, 1, 1, 8), 1);
  EXPECT_EQ(runtime::ExpertCapacity(1, 0, 2, 4), 0);
}

TEST(RouterOps, CpuMatchesTheReference) {
  testing::RunProcesses(1, [](int, int, const std::string&) {
    Device &cpu = CpuDevice(), &reference = ReferenceDevice();
    struct Case {
      int64_t experts, k;
      std::vector<int32_t> offsets;
    };
    const Case cases[] = {
        {4, 2, {0}}, {1, 1, {0, 5}}, {8, 2, {0, 0, 33, 40}}, {3, 3, {0, 7, 7}}, {129, 6, {0, 11, 300}}};
    for (const Case& c : cases) {
      const int64_t tokens = c.offsets.back(), sequences = static_cast<int64_t>(c.offsets.size()) - 1;
      const std::vector<int32_t> chosen = Choices(tokens, c.k, c.experts);
      const Tensor probs = Probabilities(tokens, c.experts, 5), logits = Random({tokens, c.experts}, 6, 3);
      const auto run = [&](Device& device, DataType state) {
        const Tensor indices = Indices(device, {tokens, c.k}, chosen);
        const Tensor offsets = Indices(device, {sequences + 1}, c.offsets);
        const Tensor losses = Tensor::Empty(device, {sequences}, state);
        const Tensor dprobs = Tensor::Zeros(device, {tokens, c.experts}, state);
        const Tensor z = Tensor::Empty(device, {tokens}, state);
        const Tensor dlogits = Tensor::Zeros(device, {tokens, c.experts}, state);
        const Tensor kept = Tensor::Empty(device, {tokens, c.k}, DataType::kI32);
        device.ops().BalanceLoss(probs.To(device, state), indices, offsets, 0.5, losses, dprobs);
        device.ops().RouterZLoss(logits.To(device, state), 0.5, z, dlogits);
        device.ops().DropOverCapacity(indices, offsets, c.experts, 1.1, kept);
        return std::vector<Tensor>{losses, dprobs, z, dlogits, kept};
      };
      const std::vector<Tensor> got = run(cpu, DataType::kF32), want = run(reference, DataType::kF64);
      for (size_t i = 0; i < got.size(); ++i) {
        const std::vector<double> a = ToHost(got[i]), b = ToHost(want[i]);
        double largest = 0, worst = 0;
        for (size_t j = 0; j < b.size(); ++j) {
          largest = std::max(largest, std::abs(b[j]));
          worst = std::max(worst, std::abs(a[j] - b[j]));
        }
        EXPECT_LE(worst, 1e-5 * largest) << "result " << i << " with " << c.experts << " experts";
      }
    }
  });
}

}  // namespace
}  // namespace cohort::moe
