// Whole models, dense and with experts: gradients in f32 on the CPU against a double-precision run, and those
// of a mixture in f64 against central differences of its loss.
#include <gtest/gtest.h>

#include <string>

#include "tests/moe/layer_under_test.h"
#include "tests/moe/numeric.h"
#include "tests/support/ranks.h"

namespace cohort::moe {
namespace {

using runtime::CpuDevice;
using runtime::Decoder;
using runtime::LossScale;
using runtime::Parameter;
using runtime::ReferenceDevice;
using runtime::Tensor;
using runtime::TokenBatch;

std::unique_ptr<Decoder> Make(const runtime::ModelConfig& config, runtime::Device& device, DataType compute,
                              bool recompute = false) {
  return runtime::MakeDecoder(config, device,
                              {.compute = compute,
                               .trainable = true,
                               .recompute = recompute,
                               .experts = MakeMoeFactory(std::make_shared<ExpertGroup>())});
}

struct ModelCase {
  std::string name;
  runtime::ModelConfig config;
};
void PrintTo(const ModelCase& c, std::ostream* out) { *out << c.name; }

std::vector<ModelCase> Models() {
  std::vector<ModelCase> models = {{"dense_llama", runtime::SmallConfig("llama")},
                                   {"dense_qwen3", runtime::SmallConfig("qwen3")}};
  for (const char* family : {"mixtral", "qwen3_moe"}) {
    for (const LayerCase& c : LayerCases()) {
      if (!c.normalize && std::string(family) == "mixtral") continue;  // which always normalizes
      runtime::ModelConfig config = runtime::SmallConfig(family);
      config.router = ConfigOf(c).router;
      config.shared_expert_intermediate_size = c.shared;
      models.push_back({std::string(family) + "_" + c.name, config});
    }
  }
  return models;
}

class WholeModelTest : public ::testing::TestWithParam<ModelCase> {};

// The bar: every parameter below 1e-4.
TEST_P(WholeModelTest, F32GradientsMatchTheDoublePrecisionRun) {
  const runtime::ModelConfig& config = GetParam().config;
  cohort::testing::RunProcesses(1, [&](int, int, const std::string&) {
    const LossScale scale = {.tokens = 60, .sequences = 4};
    const std::vector<int> lengths = {33, 1, 17, 9};
    const auto cpu = Make(config, CpuDevice(), DataType::kF32);
    const auto reference = Make(config, ReferenceDevice(), DataType::kF64);
    runtime::CopyWeights(*cpu, *reference);
    const auto got =
        cpu->ForwardBackward(runtime::RandomBatch(CpuDevice(), lengths, config.vocab_size, 11), scale);
    const auto want = reference->ForwardBackward(
        runtime::RandomBatch(ReferenceDevice(), lengths, config.vocab_size, 11), scale);
    ASSERT_TRUE(got.ok()) << got.status();
    ASSERT_TRUE(want.ok()) << want.status();
    EXPECT_NEAR(got->loss, want->loss, 1e-5 * want->loss);
    EXPECT_NEAR(got->aux_loss, want->aux_loss, 1e-5 * want->aux_loss);
    EXPECT_EQ(got->expert_load, want->expert_load) << "a near tie was decided otherwise: choose another seed";
    EXPECT_EQ(got->dropped, want->dropped);
    for (Parameter* parameter : runtime::AllParameters(*reference)) {
      if (parameter->buffer) continue;
      EXPECT_LT(runtime::RelativeError(ToHost(cpu->Find(parameter->name)->grad), ToHost(parameter->grad)),
                1e-4)
          << parameter->name;
    }
  });
}

INSTANTIATE_TEST_SUITE_P(Models, WholeModelTest, ::testing::ValuesIn(Models()),
                         [](const auto& info) { return info.param.name; });

TEST(WholeModel, MixtureGradientsMatchCentralDifferences) {
  runtime::ModelConfig config = ConfigOf(LayerCases()[4], "mixtral");
  const auto decoder = Make(config, ReferenceDevice(), DataType::kF64);
  const TokenBatch batch = runtime::RandomBatch(ReferenceDevice(), {6, 1, 4}, config.vocab_size, 7);
  const LossScale scale = {.tokens = 8, .sequences = 3};
  ASSERT_TRUE(decoder->ForwardBackward(batch, scale).ok());
  std::vector<std::vector<double>> gradients;
  std::vector<Parameter*> parameters;
  for (Parameter* parameter : runtime::AllParameters(*decoder)) {
    if (parameter->buffer) continue;
    parameters.push_back(parameter);
    gradients.push_back(ToHost(parameter->grad));
  }
  const auto loss = [&] {
    const auto sums = decoder->ForwardBackward(batch, scale);
    EXPECT_TRUE(sums.ok()) << sums.status();
    return sums->loss / scale.tokens + sums->aux_loss;
  };
  runtime::Ops& ops = ReferenceDevice().ops();
  constexpr double kStep = 1e-5;
  for (size_t p = 0; p < parameters.size(); ++p) {
    // Along one random direction of each parameter.
    const Tensor& value = parameters[p]->value;
    const Tensor direction = Random(parameters[p]->shape, 100 + p), before = value.Clone();
    const auto at = [&](double step) {
      ops.Copy(before, value);
      ops.Accumulate(direction, step, value);
      return loss();
    };
    const double measured = (at(kStep) - at(-kStep)) / (2 * kStep);
    ops.Copy(before, value);
    double expected = 0;
    const std::vector<double> along = ToHost(direction);
    for (size_t i = 0; i < along.size(); ++i) expected += along[i] * gradients[p][i];
    EXPECT_NEAR(measured, expected, 1e-7 * std::max(1.0, runtime::Norm(gradients[p]) * runtime::Norm(along)))
        << parameters[p]->name;
  }
}

TEST(WholeModel, RecomputationChangesNothing) {
  runtime::ModelConfig config = ConfigOf(LayerCases()[2]);
  const auto kept = Make(config, ReferenceDevice(), DataType::kF64);
  const auto recomputed = Make(config, ReferenceDevice(), DataType::kF64, /*recompute=*/true);
  const TokenBatch batch = runtime::RandomBatch(ReferenceDevice(), {6, 1, 4}, config.vocab_size, 7);
  const auto a = kept->ForwardBackward(batch, {.tokens = 8, .sequences = 3});
  const auto b = recomputed->ForwardBackward(batch, {.tokens = 8, .sequences = 3});
  ASSERT_TRUE(a.ok() && b.ok());
  EXPECT_EQ(a->loss, b->loss);
  EXPECT_EQ(a->aux_loss, b->aux_loss);
  EXPECT_EQ(a->expert_load, b->expert_load);
  EXPECT_EQ(a->dropped, b->dropped);
  for (Parameter* parameter : runtime::AllParameters(*kept)) {
    if (parameter->buffer) continue;
    EXPECT_EQ(ToHost(parameter->grad), ToHost(recomputed->Find(parameter->name)->grad)) << parameter->name;
  }
}

}  // namespace
}  // namespace cohort::moe
