// However a model is spread over ranks, it is the same training: per-step losses within 1e-5 of one rank's.
#include <gtest/gtest.h>

#include <string>

#include "tests/parallel/training_run.h"

namespace cohort::parallel {
namespace {

struct Arrangement {
  int ranks, expert;
};
constexpr Arrangement kArrangements[] = {
    {2, 1}, {4, 1}, {2, 2}, {4, 4}, {4, 2}};  // data, data, expert, expert, both

std::string Name(const Arrangement& a) {
  return std::to_string(a.ranks) + " ranks, experts over " + std::to_string(a.expert);
}

runtime::ModelConfig Mixture(const char* gate) {
  runtime::ModelConfig config = runtime::TinyConfig("qwen3_moe");
  config.router.gate = gate;
  config.router.z_loss_coef = 0.001;
  config.router.bias_update_rate = 0.001;
  config.shared_expert_intermediate_size = 0;
  return config;
}

// Router weights that send every token to expert 1 and none to expert 2. Logits are products of w_e
// with normed inputs of either sign, so a weight alone cannot do that: a direction that all inputs
// share can. Every row of the embedding gets a large component along the first coordinate, which
// norms and residuals keep positive.
void BiasRouters(ParallelModel& model) {
  runtime::Decoder& decoder = model.decoder();
  const auto& config = decoder.config();
  const auto set = [&](const std::string& name, const std::function<void(float*)>& change) {
    runtime::Parameter* parameter = decoder.Find(name);
    ASSERT_NE(parameter, nullptr) << name;
    change(parameter->value.data<float>());
  };
  set("model.embed_tokens.weight", [&](float* w) {
    for (int64_t v = 0; v < config.vocab_size; ++v) w[v * config.hidden_size] = 4;
  });
  for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    set("model.layers." + std::to_string(layer) + ".mlp.gate.weight", [&](float* w) {
      w[1 * config.hidden_size] = 3;
      w[2 * config.hidden_size] = -3;
    });
  }
}

void ExpectStarvedAndFavoured(const Report& report, const Training& run) {
  const auto experts = static_cast<size_t>(run.config.num_experts);
  for (size_t step = 0; step < report.loads.size(); ++step) {
    const std::vector<double>& loads = report.loads[step];
    for (size_t block = 0; block < loads.size(); block += experts) {
      double total = 0;
      for (size_t e = 0; e < experts; ++e) total += loads[block + e];
      EXPECT_EQ(loads[block + 2], 0) << "step " << step;
      EXPECT_GT(loads[block + 1], 0.4 * total) << "step " << step;  // of at most half: every token takes two
    }
  }
}

class EqualLosses : public ::testing::TestWithParam<const char*> {};

TEST_P(EqualLosses, WithAnExpertThatGetsNoTokenAndOneThatGetsMost) {
  Training run = {.config = Mixture(GetParam())};
  const Report one = Train(run, BiasRouters);
  ExpectStarvedAndFavoured(one, run);
  EXPECT_LT(one.losses.back(), one.losses.front()) << "nothing was learned";
  for (const Arrangement& a : kArrangements) {
    run.ranks = a.ranks;
    run.expert = a.expert;
    ExpectSameTraining(Train(run, BiasRouters), one, Name(a));
  }
}

TEST_P(EqualLosses, WithUnevenSharesMicroBatchesAndFixedCapacity) {
  Training run = {.config = Mixture(GetParam())};
  run.config.router.capacity_factor = 1.0;
  run.config.shared_expert_intermediate_size = 8;
  run.config.tie_word_embeddings = true;
  run.options.global_batch = 7;  // two sequences on three of four ranks, one on the other
  run.steps = 8;
  const Report one = Train(run);
  EXPECT_GT(one.dropped, 0) << "the test shows nothing about capacity";
  run.options.micro_batch = 1;
  run.options.recompute = true;
  for (const Arrangement& a : {Arrangement{1, 1}, {4, 1}, {4, 2}, {4, 4}}) {
    run.ranks = a.ranks;
    run.expert = a.expert;
    ExpectSameTraining(Train(run), one, Name(a));
  }
}

INSTANTIATE_TEST_SUITE_P(Gates, EqualLosses, ::testing::Values("softmax", "sigmoid"),
                         [](const auto& info) { return std::string(info.param); });

TEST(EqualLossesDense, DataParallel) {
  Training run = {.config = runtime::TinyConfig("llama")};
  const Report one = Train(run);
  for (const int ranks : {2, 4}) {
    run.ranks = ranks;
    ExpectSameTraining(Train(run), one, std::to_string(ranks) + " ranks");
  }
}

TEST(EqualLossesDense, MoreRanksThanSequences) {
  Training run = {.config = runtime::TinyConfig("mixtral")};
  run.options.global_batch = 2;
  run.steps = 5;
  const Report one = Train(run);
  run.ranks = 4;
  run.expert = 2;
  ExpectSameTraining(Train(run), one, "4 ranks, 2 sequences");
}

}  // namespace
}  // namespace cohort::parallel
