// Every gate of the table against plain loops over one token at a time, and
// its gradients against central differences.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "moe/gates/gate.h"
#include "tests/moe/numeric.h"
#include "tests/support/tiny_model.h"

namespace cohort::moe {
namespace {

using runtime::ReferenceDevice;
using runtime::Tensor;
using ::testing::HasSubstr;

constexpr int64_t kTokens = 9, kExperts = 6, kTopK = 3;

struct GateUnderTest {
  runtime::ModelConfig config;
  std::string prefix = "model.layers.0.";
  runtime::ParameterGroup group{"block"};
  std::unique_ptr<Gate> gate;

  explicit GateUnderTest(const std::string& name, bool normalize = true, double rate = 0.1) {
    config = runtime::TinyConfig("qwen3_moe");
    config.num_experts = kExperts;
    config.num_experts_per_tok = kTopK;
    config.router.gate = name;
    config.router.normalize_weights = normalize;
    config.router.bias_update_rate = rate;
    auto made = MakeGate({config, prefix, ReferenceDevice(), group});
    EXPECT_TRUE(made.ok()) << made.status();
    gate = *std::move(made);
    group.Allocate(ReferenceDevice(), DataType::kF64, /*trainable=*/true);
  }
  // Null for a gate without one.
  runtime::Parameter* bias() {
    return group.parameters().empty() ? nullptr : group.parameters().front().get();
  }
};

// The scores of one token, by the definition of the gate.
std::vector<double> Scores(const std::string& gate, const double* logits) {
  std::vector<double> scores(kExperts);
  double sum = 0;
  for (int64_t e = 0; e < kExperts; ++e) {
    scores[e] = gate == "softmax" ? std::exp(logits[e]) : 1 / (1 + std::exp(-logits[e]));
    sum += scores[e];
  }
  if (gate == "softmax") {
    for (double& score : scores) score /= sum;
  }
  return scores;
}

class EveryGate : public ::testing::TestWithParam<std::tuple<const char*, bool>> {
 protected:
  const std::string name_ = std::get<0>(GetParam());
  const bool normalize_ = std::get<1>(GetParam());
};

TEST_P(EveryGate, ChoosesAndWeighsAsPlainLoopsDo) {
  GateUnderTest test(name_, normalize_);
  std::vector<double> bias(kExperts, 0);
  if (test.bias() != nullptr) {
    for (int64_t e = 0; e < kExperts; ++e) bias[e] = test.bias()->value.data<double>()[e] = 0.3 * (e % 3);
  }
  const Tensor logits = Random({kTokens, kExperts}, 3);
  const Gate::Choice choice = test.gate->Choose(logits);
  const Tensor probabilities = test.gate->Probabilities(choice);
  for (int64_t t = 0; t < kTokens; ++t) {
    const std::vector<double> scores = Scores(name_, logits.data<double>() + t * kExperts);
    std::vector<int> order(kExperts);
    std::iota(order.begin(), order.end(), 0);
    std::sort(order.begin(), order.end(),
              [&](int a, int b) { return scores[a] + bias[a] > scores[b] + bias[b]; });
    double chosen = 0;
    for (int64_t j = 0; j < kTopK; ++j) chosen += scores[order[j]];
    for (int64_t j = 0; j < kTopK; ++j) {
      EXPECT_EQ(choice.indices.data<int32_t>()[t * kTopK + j], order[j]);
      EXPECT_NEAR(choice.weights.data<double>()[t * kTopK + j], scores[order[j]] / (normalize_ ? chosen : 1),
                  1e-14);
    }
    const double total = std::accumulate(scores.begin(), scores.end(), 0.0);
    for (int64_t e = 0; e < kExperts; ++e) {
      EXPECT_NEAR(probabilities.data<double>()[t * kExperts + e], scores[e] / total, 1e-14);
    }
  }
}

TEST_P(EveryGate, GradientMatchesCentralDifferences) {
  GateUnderTest test(name_, normalize_);
  const Tensor logits = Random({kTokens, kExperts}, 4);
  const Tensor dweights = Random({kTokens, kTopK}, 5), dprobabilities = Random({kTokens, kExperts}, 6);
  const Gate::Choice choice = test.gate->Choose(logits);
  for (const bool with_loss : {false, true}) {
    const auto loss = [&] {
      const Gate::Choice moved = test.gate->Choose(logits);
      EXPECT_EQ(ToHost(moved.indices), ToHost(choice.indices)) << "the step crossed to another choice";
      return Dot(moved.weights, dweights) +
             (with_loss ? Dot(test.gate->Probabilities(moved), dprobabilities) : 0.0);
    };
    const Tensor gradient = test.gate->Backward(choice, dweights, with_loss ? dprobabilities : Tensor());
    const std::vector<double> expected = NumericalGradient(logits, loss);
    for (size_t i = 0; i < expected.size(); ++i) {
      EXPECT_NEAR(gradient.data<double>()[i], expected[i], 1e-8) << "element " << i;
    }
  }
}

TEST_P(EveryGate, TakesABatchOfNoTokens) {
  GateUnderTest test(name_, normalize_);
  const Tensor logits = Tensor::Empty(ReferenceDevice(), {0, kExperts}, DataType::kF64);
  const Gate::Choice choice = test.gate->Choose(logits);
  EXPECT_EQ(choice.indices.size(), 0);
  const Tensor dweights = Tensor::Empty(ReferenceDevice(), {0, kTopK}, DataType::kF64);
  EXPECT_EQ(test.gate->Backward(choice, dweights, {}).size(), 0);
}

INSTANTIATE_TEST_SUITE_P(Gates, EveryGate,
                         ::testing::Combine(::testing::ValuesIn([] {
                                              std::vector<const char*> names;
                                              for (const GateRow& row : Gates()) names.push_back(row.name);
                                              return names;
                                            }()),
                                            ::testing::Bool()),
                         [](const auto& info) {
                           return std::string(std::get<0>(info.param)) +
                                  (std::get<1>(info.param) ? "_normalized" : "_plain");
                         });

TEST(SigmoidGate, MovesItsBiasAgainstTheLoadAndKeepsItsMean) {
  GateUnderTest test("sigmoid", true, 0.1);
  ASSERT_NE(test.bias(), nullptr);
  EXPECT_EQ(test.bias()->name, "model.layers.0.mlp.gate.e_score_correction_bias");
  EXPECT_TRUE(test.bias()->buffer);
  // The mean is 10: three below, one at it, two above. delta = 0.1 (+ + 0 - + -), its mean 0.1 / 6.
  test.gate->UpdateBalance({1, 2, 10, 20, 3, 24});
  const double mean = 0.1 / 6;
  const double expected[] = {0.1 - mean, 0.1 - mean, -mean, -0.1 - mean, 0.1 - mean, -0.1 - mean};
  for (int64_t e = 0; e < kExperts; ++e) {
    EXPECT_NEAR(test.bias()->value.data<double>()[e], expected[e], 1e-15) << "expert " << e;
  }
}

TEST(SigmoidGate, BiasEvensOutAnUnevenLoad) {
  GateUnderTest test("sigmoid", true, 0.002);
  // Logits that favour the first experts by far.
  const Tensor logits = Random({300, kExperts}, 8, 0.5);
  for (int64_t t = 0; t < 300; ++t) {
    for (int64_t e = 0; e < kExperts; ++e)
      logits.data<double>()[t * kExperts + e] -= 0.7 * static_cast<double>(e);
  }
  int64_t most_before = 0, most = 0;
  for (int step = 0; step < 400; ++step) {
    std::vector<int64_t> load(kExperts, 0);
    for (const double e : ToHost(test.gate->Choose(logits).indices)) ++load[static_cast<size_t>(e)];
    most = *std::max_element(load.begin(), load.end());
    if (step == 0) most_before = most;
    test.gate->UpdateBalance(load);
  }
  const int64_t even = 300 * kTopK / kExperts;
  EXPECT_GT(most_before, even * 19 / 10);
  EXPECT_LT(most, even * 13 / 10);
}

TEST(Gates, AnUnknownNameIsAnErrorThatListsTheKnownOnes) {
  runtime::ModelConfig config = runtime::TinyConfig("mixtral");
  config.router.gate = "softmx";
  runtime::ParameterGroup group("block");
  const auto gate = MakeGate({config, "model.layers.0.", ReferenceDevice(), group});
  EXPECT_EQ(gate.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(gate.status().message(), HasSubstr("softmx"));
  EXPECT_THAT(gate.status().message(), HasSubstr("softmax, sigmoid"));
}

TEST(Gates, MoreChoicesThanExpertsAreAnError) {
  runtime::ModelConfig config = runtime::TinyConfig("mixtral");
  config.num_experts_per_tok = 5;
  runtime::ParameterGroup group("block");
  const auto gate = MakeGate({config, "model.layers.0.", ReferenceDevice(), group});
  EXPECT_EQ(gate.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(gate.status().message(), HasSubstr("num_experts_per_tok is 5"));
}

}  // namespace
}  // namespace cohort::moe
