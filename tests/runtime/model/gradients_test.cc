// Gradients of whole models in f64 on the reference device against central differences.
#include <gtest/gtest.h>

#include "tests/support/tiny_model.h"

namespace cohort::runtime {
namespace {

struct Case {
  const char* name;
  const char* model_type;
  bool tied;
  const char* rope;
};

class GradientsTest : public testing::TestWithParam<Case> {
 protected:
  static ModelConfig Config() {
    ModelConfig config = TinyConfig(GetParam().model_type);
    config.tie_word_embeddings = GetParam().tied;
    config.rope_scaling.type = GetParam().rope;
    config.rope_scaling.factor = 3;
    config.rope_scaling.original_max_position = 12;
    return config;
  }
};

double Loss(Decoder& decoder, const TokenBatch& batch) {
  const auto sums = decoder.Evaluate(batch);
  EXPECT_TRUE(sums.ok()) << sums.status();
  return sums->loss / static_cast<double>(sums->tokens);
}

// (loss(value + h direction) - loss(value - h direction)) / 2h
double Difference(Decoder& decoder, const TokenBatch& batch, Parameter& parameter, const Tensor& direction) {
  constexpr double kStep = 1e-5;
  Ops& ops = decoder.device().ops();
  const Tensor before = parameter.value.Clone();
  ops.Accumulate(direction, kStep, parameter.value);
  const double above = Loss(decoder, batch);
  ops.Copy(before, parameter.value);
  ops.Accumulate(direction, -kStep, parameter.value);
  const double below = Loss(decoder, batch);
  ops.Copy(before, parameter.value);
  return (above - below) / (2 * kStep);
}

TEST_P(GradientsTest, EveryParameterMatchesCentralDifferences) {
  Device& device = ReferenceDevice();
  const auto decoder = MakeDecoder(Config(), device, {.compute = DataType::kF64});
  const TokenBatch batch = RandomBatch(device, {6, 1, 4}, Config().vocab_size, 7);
  const auto sums = decoder->ForwardBackward(batch, {.tokens = 8, .sequences = 3});
  ASSERT_TRUE(sums.ok()) << sums.status();
  EXPECT_EQ(sums->tokens, 8);
  EXPECT_NEAR(sums->loss / 8, Loss(*decoder, batch), 1e-12);

  uint32_t purpose = 0;
  for (Parameter* parameter : AllParameters(*decoder)) {
    const std::vector<double> gradient = ToHost(parameter->grad);
    for (int trial = 0; trial < 3; ++trial) {
      const Tensor direction = Tensor::Empty(device, parameter->shape, DataType::kF64);
      device.ops().FillNormal(direction, 5, ++purpose, 0, 1);
      const std::vector<double> along = ToHost(direction);
      double expected = 0;
      for (size_t i = 0; i < along.size(); ++i) expected += along[i] * gradient[i];
      const double measured = Difference(*decoder, batch, *parameter, direction);
      EXPECT_NEAR(measured, expected, 1e-7 * std::max(1.0, Norm(gradient) * Norm(along))) << parameter->name;
    }
    EXPECT_GT(Norm(gradient), 1e-6) << parameter->name
                                    << " has no influence: the test shows nothing about it";
  }
}

INSTANTIATE_TEST_SUITE_P(Families, GradientsTest,
                         testing::Values(Case{"llama", "llama", false, "default"},
                                         Case{"llama_tied", "llama", true, "llama3"},
                                         Case{"mistral", "mistral", false, "linear"},
                                         Case{"qwen3", "qwen3", false, "linear"},
                                         Case{"qwen3_tied", "qwen3", true, "default"}),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace cohort::runtime
