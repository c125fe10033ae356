// The layer against plain loops over tokens and experts, and its gradients against central differences.
#include "moe/moe_layer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "tests/moe/layer_under_test.h"
#include "tests/moe/numeric.h"
#include "tests/support/ranks.h"

namespace cohort::moe {
namespace {

using runtime::FeedForward;
using runtime::FeedForwardInput;
using runtime::LossScale;
using runtime::LossSums;
using runtime::Parameter;
using runtime::ReferenceDevice;
using runtime::Tensor;
using runtime::TokenBatch;

constexpr LossScale kScale = {.tokens = 17, .sequences = 5};

// y += weight x down(silu(gate(x)) up(x)), for one token.
void AddExpert(LayerUnderTest& test, const std::string& module, const double* x, int64_t width, double weight,
               double* y) {
  const Parameter& gate = test.Find(module + "gate_proj.weight");
  const Parameter& up = test.Find(module + "up_proj.weight");
  const Parameter& down = test.Find(module + "down_proj.weight");
  for (int64_t f = 0; f < gate.shape[0]; ++f) {
    double g = 0, u = 0;
    for (int64_t d = 0; d < width; ++d) {
      g += gate.value.data<double>()[f * width + d] * x[d];
      u += up.value.data<double>()[f * width + d] * x[d];
    }
    const double hidden = g / (1 + std::exp(-g)) * u;
    for (int64_t d = 0; d < width; ++d) {
      y[d] += weight * hidden * down.value.data<double>()[d * gate.shape[0] + f];
    }
  }
}

// The layer's definition for dropless softmax and sigmoid gates without bias.
std::vector<double> PlainForward(LayerUnderTest& test, const runtime::ModelConfig& config, const Tensor& x) {
  const int64_t width = config.hidden_size, experts = config.num_experts;
  const Parameter& router = test.Find("mlp.gate.weight");
  std::vector<double> y(x.size(), 0);
  for (int64_t t = 0; t < x.dim(0); ++t) {
    const double* token = x.data<double>() + t * width;
    std::vector<std::pair<double, int64_t>> scores;
    double sum = 0;
    for (int64_t e = 0; e < experts; ++e) {
      double logit = 0;
      for (int64_t d = 0; d < width; ++d) logit += router.value.data<double>()[e * width + d] * token[d];
      const bool softmax = config.router.gate == "softmax";
      scores.push_back({softmax ? std::exp(logit) : 1 / (1 + std::exp(-logit)), e});
      sum += softmax ? scores.back().first : 0;
    }
    std::sort(scores.rbegin(), scores.rend());
    double chosen = 0;
    for (int64_t j = 0; j < config.num_experts_per_tok; ++j) chosen += scores[j].first;
    const double divisor = config.router.normalize_weights ? chosen : (sum > 0 ? sum : 1);
    for (int64_t j = 0; j < config.num_experts_per_tok; ++j) {
      AddExpert(test, "mlp.experts." + std::to_string(scores[j].second) + ".", token, width,
                scores[j].first / divisor, y.data() + t * width);
    }
    if (config.shared_expert_intermediate_size > 0) {
      AddExpert(test, "mlp.shared_expert.", token, width, 1, y.data() + t * width);
    }
  }
  return y;
}

class MoeLayerTest : public ::testing::TestWithParam<LayerCase> {};

TEST_P(MoeLayerTest, DroplessForwardIsThePlainLoops) {
  const runtime::ModelConfig config = ConfigOf(GetParam());
  LayerUnderTest test(config, ReferenceDevice(), DataType::kF64);
  const Tensor x = Random({11, config.hidden_size}, 2);
  // Without a batch: inference, where nothing is dropped.
  const auto y = test.layer->Forward({.x = x, .batch = nullptr}, nullptr, nullptr);
  ASSERT_TRUE(y.ok()) << y.status();
  const std::vector<double> expected = PlainForward(test, config, x);
  for (size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(y->data<double>()[i], expected[i], 1e-13);
}

TEST_P(MoeLayerTest, EveryGradientMatchesCentralDifferences) {
  const runtime::ModelConfig config = ConfigOf(GetParam());
  LayerUnderTest test(config, ReferenceDevice(), DataType::kF64);
  const TokenBatch batch = runtime::RandomBatch(ReferenceDevice(), {6, 0, 1, 4}, config.vocab_size, 3);
  const Tensor x = Random({11, config.hidden_size}, 2), dy = Random({11, config.hidden_size}, 4);
  const FeedForwardInput input = {.x = x, .batch = &batch, .offsets = batch.offsets, .scale = kScale};

  std::unique_ptr<FeedForward::Saved> saved;
  LossSums sums;
  ASSERT_TRUE(test.layer->Forward(input, &saved, &sums).ok());
  ASSERT_EQ(sums.expert_load.size(), 1u);
  int64_t choices = 0;
  for (const int64_t count : sums.expert_load[0]) choices += count;
  EXPECT_EQ(choices, 22);
  EXPECT_EQ(sums.dropped > 0, GetParam().capacity > 0) << "the case shows nothing about capacity";
  const auto dx = test.layer->BackwardInput(dy, *saved, {});
  ASSERT_TRUE(dx.ok()) << dx.status();
  test.layer->BackwardWeight(*saved, {});

  const auto loss = [&] {
    LossSums moved;
    const auto y = test.layer->Forward(input, nullptr, &moved);
    EXPECT_EQ(moved.expert_load, sums.expert_load) << "the step crossed to another choice";
    return Dot(*y, dy) + moved.aux_loss;
  };
  const auto check = [&](const Tensor& gradient, const Tensor& value, const std::string& name) {
    const std::vector<double> expected = NumericalGradient(value, loss);
    for (size_t i = 0; i < expected.size(); ++i) {
      EXPECT_NEAR(gradient.data<double>()[i], expected[i], 1e-8) << name << ", element " << i;
    }
  };
  check(*dx, x, "the input");
  for (const auto& parameter : test.group.parameters()) {
    if (!parameter->buffer) check(parameter->grad, parameter->value, parameter->name);
  }
}

TEST_P(MoeLayerTest, TakesABatchOfNoTokens) {
  const runtime::ModelConfig config = ConfigOf(GetParam());
  LayerUnderTest test(config, ReferenceDevice(), DataType::kF64);
  const TokenBatch batch = runtime::RandomBatch(ReferenceDevice(), {}, config.vocab_size, 3);
  const Tensor none = Tensor::Empty(ReferenceDevice(), {0, config.hidden_size}, DataType::kF64);
  std::unique_ptr<FeedForward::Saved> saved;
  LossSums sums;
  const auto y = test.layer->Forward({.x = none, .batch = &batch, .offsets = batch.offsets, .scale = kScale},
                                     &saved, &sums);
  ASSERT_TRUE(y.ok()) << y.status();
  const auto dx = test.layer->BackwardInput(none, *saved, {});
  ASSERT_TRUE(dx.ok()) << dx.status();
  test.layer->BackwardWeight(*saved, {});
  EXPECT_EQ(dx->shape(), none.shape());
  EXPECT_EQ(sums.expert_load, (std::vector<std::vector<int64_t>>{{0, 0, 0, 0}}));
  EXPECT_EQ(sums.aux_loss, 0);
  for (const auto& parameter : test.group.parameters()) {
    if (parameter->buffer) continue;
    EXPECT_EQ(Dot(parameter->grad, parameter->grad), 0) << parameter->name;
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, MoeLayerTest, ::testing::ValuesIn(LayerCases()),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(MoeLayer, LossesAreTheSameHoweverTheSequencesAreDivided) {
  const runtime::ModelConfig config = ConfigOf(LayerCases()[2]);
  LayerUnderTest test(config, ReferenceDevice(), DataType::kF64);
  const Tensor x = Random({11, config.hidden_size}, 2);
  const auto run = [&](const std::vector<int>& lengths, int64_t begin, LossSums& sums) {
    int64_t tokens = 0;
    for (const int length : lengths) tokens += length;
    const TokenBatch batch = runtime::RandomBatch(ReferenceDevice(), lengths, config.vocab_size, 3);
    const auto y = test.layer->Forward(
        {.x = x.Slice(begin, begin + tokens), .batch = &batch, .offsets = batch.offsets, .scale = kScale},
        nullptr, &sums);
    EXPECT_TRUE(y.ok()) << y.status();
    return ToHost(*y);
  };
  LossSums whole, parts;
  const std::vector<double> together = run({6, 1, 4}, 0, whole);
  std::vector<double> divided = run({6}, 0, parts);
  for (const double value : run({1, 4}, 6, parts)) divided.push_back(value);
  EXPECT_EQ(together, divided);
  EXPECT_NEAR(whole.aux_loss, parts.aux_loss, 1e-15);
  EXPECT_EQ(whole.dropped, parts.dropped);
}

TEST(MoeLayer, ExpertsThatDoNotDivideOverTheRanksAreAnError) {
  testing::RunRanks(3, [](comm::Communicator& world) {
    const auto group_of_three = std::shared_ptr<comm::Communicator>(&world, [](comm::Communicator*) {});
    runtime::ParameterGroup group("block");
    const auto layer = MakeMoeFactory(std::make_shared<ExpertGroup>(group_of_three))(
        runtime::TinyConfig("mixtral"), 0, "model.layers.0.", ReferenceDevice(), DataType::kF64, group);
    EXPECT_EQ(layer.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(layer.status().message(),
                ::testing::HasSubstr("4 experts cannot be divided evenly over 3 ranks"));
  });
}

}  // namespace
}  // namespace cohort::moe
