#include "runtime/config/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <tuple>
#include <vector>

#include "google/protobuf/util/message_differencer.h"
#include "runtime/config/help.h"
#include "runtime/config/yaml_message.h"
#include "tests/support/temp_folder.h"
#include "tests/support/test_data.h"

namespace cohort::runtime {
namespace {

using cohort::v1::TrainConfig;
using google::protobuf::util::MessageDifferencer;
using ::testing::HasSubstr;

ConfigFacts Facts(int ranks = 1) {
  ConfigFacts facts;
  facts.ranks = ranks;
  facts.ranks_on_host = ranks;
  facts.cores = 8;
  facts.tokenizer_size = 1000;
  return facts;
}

// A small configuration and what `more` adds.
TrainConfig Base(const std::vector<std::string>& more = {}) {
  TrainConfig config;
  EXPECT_TRUE(ParseYaml("output: o\ndata: {train: [d/data]}\ntrain: {steps: 1000}\n", "f", config).ok());
  for (const std::string& set : more) {
    const absl::Status status = ApplyOverride(set, config);
    EXPECT_TRUE(status.ok()) << status;
  }
  return config;
}

TEST(DefaultsTest, AsTheSchemasCommentsSay) {
  auto resolved = ResolveConfig(Base(), Facts(2));
  ASSERT_TRUE(resolved.ok()) << resolved.status();
  TrainConfig expected;
  ASSERT_TRUE(
      ParseYaml(
          "output: o\n"
          "seed: 1\n"
          "device: cpu\n"
          "model: {model_type: llama, vocab_size: 1024, hidden_size: 256, intermediate_size: 704,\n"
          "  num_hidden_layers: 4, num_attention_heads: 4, num_key_value_heads: 4, head_dim: 64,\n"
          "  max_position_embeddings: 512, rope_theta: 10000, rms_norm_eps: 1e-5,\n"
          "  tie_word_embeddings: false, initializer_range: 0.02}\n"
          "data: {train: [d/data], sequence_length: 512, tokenizer: d/data/tokenizer.json, samples: "
          "windows}\n"
          "train: {steps: 1000, global_batch: 16, micro_batch: 8, dtype: f32, recompute: false,\n"
          "  clip_grad_norm: 1, eval_every: 0, eval_sequences: 64, threads: 4, minutes: 0,\n"
          "  deterministic: false, virtual_shards: 8}\n"
          "optimizer: {name: adamw, lr: 3e-4, beta1: 0.9, beta2: 0.95, eps: 1e-8,\n"
          "  weight_decay: 0.1}\n"
          "schedule: {decay: cosine, warmup_steps: 10, min_lr_ratio: 0.1, wsd_decay_ratio: 0.2}\n"
          "parallel: {expert: 1, timeout_seconds: 120, pipeline: 1, context: 1, tensor: 1, schedule: 1f1b,\n"
          "  context_split: zigzag, context_way: ring, split_batch: false, shard: 2, sharding: ddp, "
          "hybrid_tokens: 0}\n"
          "checkpoint: {every: 0, keep: 2, resume: true, shard_megabytes: 2048}\n"
          "metrics: {tensorboard: true, log_every: 10, trace_steps: 0}\n"
          "elastic: {snapshot_every: 1, patience_seconds: 5, lost_hosts: 0, parity_data: 4, check_every: "
          "100, stragglers: name, straggler_steps: 50, straggler_return_seconds: 600}\n",
          "f", expected)
          .ok());
  std::string difference;
  MessageDifferencer differencer;
  differencer.ReportDifferencesToString(&difference);
  EXPECT_TRUE(differencer.Compare(expected, resolved->config)) << difference;
  EXPECT_EQ(resolved->model.vocab_size, 1024);
  EXPECT_EQ(resolved->model.num_experts, 0);
}

TEST(DefaultsTest, MixtureOfExperts) {
  auto qwen = ResolveConfig(Base({"model.model_type=qwen3_moe"}), Facts());
  ASSERT_TRUE(qwen.ok()) << qwen.status();
  EXPECT_EQ(qwen->model.num_experts, 8);
  EXPECT_EQ(qwen->model.num_experts_per_tok, 2);
  EXPECT_EQ(qwen->model.moe_intermediate_size, 352);
  EXPECT_TRUE(qwen->model.qk_norm);
  EXPECT_EQ(qwen->model.router.aux_loss_coef, 0.01);
  EXPECT_EQ(qwen->model.router.bias_update_rate, 0);
  auto sigmoid = ResolveConfig(Base({"model.model_type=qwen3_moe", "model.router.gate=sigmoid"}), Facts());
  ASSERT_TRUE(sigmoid.ok()) << sigmoid.status();
  EXPECT_EQ(sigmoid->model.router.aux_loss_coef, 0);
  EXPECT_EQ(sigmoid->model.router.bias_update_rate, 0.001);
  auto mixtral = ResolveConfig(Base({"model.model_type=mixtral"}), Facts());
  ASSERT_TRUE(mixtral.ok()) << mixtral.status();
  EXPECT_EQ(mixtral->model.moe_intermediate_size, 704);
}

TEST(DefaultsTest, WhatIsSetStays) {
  auto resolved = ResolveConfig(
      Base({"train.dtype=bf16", "train.global_batch=6", "train.micro_batch=3", "schedule.warmup_steps=0",
            "data.tokenizer=t.json", "checkpoint.resume=false", "train.threads=3"}),
      Facts());
  ASSERT_TRUE(resolved.ok()) << resolved.status();
  EXPECT_EQ(resolved->config.train().dtype(), "bf16");
  EXPECT_EQ(resolved->config.train().micro_batch(), 3);
  EXPECT_EQ(resolved->config.schedule().warmup_steps(), 0);
  EXPECT_EQ(resolved->config.data().tokenizer(), "t.json");
  EXPECT_FALSE(resolved->config.checkpoint().resume());
  EXPECT_EQ(resolved->config.train().threads(), 3);
}

TEST(DefaultsTest, FactsOfTheMachine) {
  ConfigFacts facts = Facts(4);
  facts.fast_bf16 = true;
  facts.cores = 2;
  auto resolved = ResolveConfig(Base(), facts);
  ASSERT_TRUE(resolved.ok()) << resolved.status();
  EXPECT_EQ(resolved->config.train().dtype(), "bf16");
  EXPECT_EQ(resolved->config.train().threads(), 1);
}

// Ranks may have unequal shares (parallel/), and the default micro-batch holds the largest one.
TEST(DefaultsTest, TheGlobalBatchNeedNotDivideByTheRanks) {
  for (const auto& [set, ranks, micro_batch] : std::vector<std::tuple<std::vector<std::string>, int, int>>{
           {{"train.global_batch=8"}, 2, 4},
           {{"train.global_batch=9"}, 2, 5},
           {{"train.global_batch=2"}, 4, 1},
           {{"train.global_batch=1048575"}, 2, 1 << 19},
           {{"train.global_batch=8", "train.micro_batch=3"}, 2, 3}}) {
    auto resolved = ResolveConfig(Base(set), Facts(ranks));
    ASSERT_TRUE(resolved.ok()) << resolved.status();
    EXPECT_EQ(resolved->config.train().micro_batch(), micro_batch) << set[0];
  }
}

// What is summed together must not depend on the ranks.
TEST(DefaultsTest, DeterministicMicroBatchesAreVirtualShardsOnAnyRanks) {
  for (const int ranks : {1, 2, 4, 16}) {
    auto resolved = ResolveConfig(Base({"train.global_batch=60", "train.deterministic=true"}), Facts(ranks));
    ASSERT_TRUE(resolved.ok()) << resolved.status();
    EXPECT_EQ(resolved->config.train().virtual_shards(), 8);
    EXPECT_EQ(resolved->config.train().micro_batch(), 8);
    resolved = ResolveConfig(Base({"train.global_batch=3", "train.deterministic=true"}), Facts(ranks));
    ASSERT_TRUE(resolved.ok()) << resolved.status();
    EXPECT_EQ(resolved->config.train().virtual_shards(), 3);
    EXPECT_EQ(resolved->config.train().micro_batch(), 1);
  }
}

TEST(DefaultsTest, MinutesWithoutSteps) {
  TrainConfig config = Base({"train.minutes=3"});
  config.mutable_train()->clear_steps();
  auto resolved = ResolveConfig(config, Facts());
  ASSERT_TRUE(resolved.ok()) << resolved.status();
  EXPECT_EQ(resolved->config.schedule().decay(), "constant");
  EXPECT_EQ(resolved->config.schedule().warmup_steps(), 100);
  EXPECT_TRUE(ResolveConfig(resolved->config, Facts()).ok());
  config.mutable_schedule()->set_decay("cosine");
  EXPECT_THAT(std::string(ResolveConfig(config, Facts()).status().message()),
              HasSubstr("schedule.decay is 'cosine'; without train.steps it must be constant"));
}

TEST(DefaultsTest, TokenizerAndValidationLieInTheTrainingFolders) {
  TrainConfig config;
  EXPECT_EQ(TokenizerPath(config), "");
  TempFolder temp;
  std::filesystem::create_directories(temp.path() + "/b/validation");
  config.mutable_data()->add_train(temp.path() + "/a");
  config.mutable_data()->add_train(temp.path() + "/b");
  EXPECT_EQ(TokenizerPath(config), temp.path() + "/a/tokenizer.json");
  ApplyDefaults(config, Facts());
  EXPECT_EQ(config.data().tokenizer(), temp.path() + "/a/tokenizer.json");
  EXPECT_THAT(config.data().validation(), ::testing::ElementsAre(temp.path() + "/b"));
}

TEST(DefaultsTest, TheResolvedFileResolvesToItself) {
  auto resolved = ResolveConfig(Base({"model.model_type=qwen3_moe"}), Facts());
  ASSERT_TRUE(resolved.ok());
  TrainConfig back;
  ASSERT_TRUE(ParseYaml(ToYaml(resolved->config), "f", back).ok());
  auto again = ResolveConfig(back, Facts());
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_TRUE(MessageDifferencer::Equals(again->config, resolved->config));
}

TEST(ValidateTest, NamesTheKeyAndWhatIsAllowed) {
  struct Case {
    std::vector<std::string> set;
    std::string message;
    int ranks = 1;
  };
  const Case cases[] = {
      {{"output="}, "output is not set"},
      {{"data.train=[]"}, "data.train is not set"},
      {{"data.train=[a, \"\"]"}, "data lists a folder without a name"},
      {{"data.sequence_length=0"}, "data.sequence_length is 0; it must be 1 or more"},
      {{"data.sequence_length=9", "model.max_position_embeddings=8"}, "max_position_embeddings is 8"},
      {{"train.steps=0"}, "train.steps is 0; it must be 1 or more"},
      {{"train.steps=-1"}, "train.steps is -1"},
      {{"train.global_batch=0"}, "train.global_batch is 0"},
      {{"train.micro_batch=0"}, "train.micro_batch is 0"},
      {{"train.virtual_shards=0"}, "train.virtual_shards is 0"},
      {{"train.virtual_shards=5"}, "train.virtual_shards is 5; only train.deterministic"},
      {{"device=gpu"}, "device is 'gpu'; it must be cpu or cuda"},
      {{"train.dtype=fp8"}, "train.dtype is 'fp8'; it must be bf16 or f32"},
      {{"train.clip_grad_norm=-1"}, "train.clip_grad_norm is -1; it must be at least 0"},
      {{"train.threads=0"}, "train.threads is 0"},
      {{"optimizer.name=sgd"}, "optimizer.name is 'sgd'; it must be adamw"},
      {{"optimizer.lr=0"}, "optimizer.lr is 0; it must be above 0"},
      {{"optimizer.beta1=1"}, "optimizer.beta1 is 1; it must be at least 0 and below 1"},
      {{"schedule.decay=exponential"}, "schedule.decay is 'exponential'; it must be cosine or linear or wsd"},
      {{"schedule.warmup_steps=1001"}, "schedule.warmup_steps is 1001; it must be 0 to 1000, train.steps"},
      {{"schedule.min_lr_ratio=1.5"}, "schedule.min_lr_ratio is 1.5; it must be at least 0 and at most 1"},
      {{"data.samples=pages"}, "data.samples is 'pages'; it must be windows or documents"},
      {{"parallel.hybrid_tokens=-1"}, "parallel.hybrid_tokens is -1; it must be 0 or more"},
      {{"parallel.hybrid_tokens=255"},
       "parallel.hybrid_tokens is 255; the 2 ranks that share sequences must hold data.sequence_length, "
       "which is 512",
       2},
      {{"parallel.tensor=0"}, "parallel.tensor is 0; it must be 1 or more"},
      {{"parallel.stages_per_rank=0"}, "parallel.stages_per_rank is 0; it must be 1 or more"},
      {{"parallel.expert=2"}, "parallel.expert is 2; a llama model has no experts", 2},
      {{"parallel.expert=3", "model.model_type=qwen3_moe"}, "must divide model.num_experts, which is 8", 3},
      {{"parallel.expert=0"}, "parallel.expert is 0"},
      {{"parallel.timeout_seconds=0"}, "parallel.timeout_seconds is 0; it must be above 0"},
      {{"checkpoint.keep=0"}, "checkpoint.keep is 0; it must be 1 or more"},
      {{"checkpoint.shard_megabytes=0"}, "checkpoint.shard_megabytes is 0"},
      {{"metrics.log_every=0"}, "metrics.log_every is 0"},
      {{"model.model_type=gpt5"}, "\"model_type\" is \"gpt5\", which is not supported"},
      {{"model.hidden_size=0"}, "section model:"},
      {{"model.num_attention_heads=0"}, "section model:"},
      {{"model.num_experts_per_tok=0", "model.model_type=qwen3_moe"}, "section model:"},
      {{"model.num_key_value_heads=3"}, "must divide num_attention_heads"},
      {{"model.vocab_size=999"}, "model.vocab_size is 999; the tokenizer has 1000 ids"},
  };
  for (const Case& c : cases) {
    auto resolved = ResolveConfig(Base(c.set), Facts(c.ranks));
    EXPECT_EQ(resolved.status().code(), absl::StatusCode::kInvalidArgument) << c.message;
    EXPECT_THAT(std::string(resolved.status().message()), HasSubstr(c.message));
  }
}

TEST(DefaultsTest, AxesShareTheRanksOfAHost) {
  ConfigFacts facts = Facts(8);
  facts.ranks_on_host = 4;
  const auto pipeline = ResolveConfig(Base({"parallel.pipeline=4", "train.global_batch=64"}), facts);
  ASSERT_TRUE(pipeline.ok()) << pipeline.status();
  EXPECT_EQ(pipeline->config.parallel().shard(), 2);
  EXPECT_EQ(pipeline->config.train().micro_batch(),
            2);  // two ranks share 64 sequences, in 16 micro-batches each
  const auto tensor = ResolveConfig(Base({"parallel.tensor=2", "train.global_batch=64"}), facts);
  ASSERT_TRUE(tensor.ok()) << tensor.status();
  EXPECT_EQ(tensor->config.parallel().shard(), 2);
  EXPECT_EQ(tensor->config.train().micro_batch(), 16);
}

TEST(ValidateTest, StepsOrMinutesAreNeeded) {
  TrainConfig config = Base();
  config.mutable_train()->clear_steps();
  EXPECT_THAT(std::string(ResolveConfig(config, Facts()).status().message()),
              HasSubstr("train.steps is not set"));
}

TEST(ValidateTest, VocabularyNeedsATokenizer) {
  ConfigFacts facts = Facts();
  facts.tokenizer_size = 0;
  EXPECT_THAT(std::string(ResolveConfig(Base(), facts).status().message()),
              HasSubstr("model.vocab_size is not set"));
}

TEST(ModelPathTest, TheFolderSaysItAll) {
  const TrainConfig config = Base({"model.path=/nonexistent"});
  EXPECT_EQ(ResolveConfig(config, Facts()).status().code(), absl::StatusCode::kNotFound);
  COHORT_SKIP_WITHOUT_TEST_DATA();
  ConfigFacts facts = Facts();
  facts.tokenizer_size = 512;
  const std::string path = "model.path=" + TestData() + "/stories260k";
  auto resolved = ResolveConfig(Base({path}), facts);
  ASSERT_TRUE(resolved.ok()) << resolved.status();
  EXPECT_EQ(resolved->model.hidden_size, 64);
  EXPECT_FALSE(resolved->config.model().has_hidden_size());
  auto both = ResolveConfig(Base({path, "model.hidden_size=64"}), facts);
  EXPECT_THAT(std::string(both.status().message()),
              HasSubstr("model.hidden_size cannot be given beside model.path"));
}

TEST(HelpTest, ShowsEveryKeyWithItsComment) {
  const std::string help = ConfigHelp(*TrainConfig::descriptor());
  EXPECT_THAT(help, HasSubstr("# Where checkpoints, metrics and logs go. Required.\noutput: <text>\n"));
  EXPECT_THAT(
      help,
      HasSubstr("# A model is described in Hugging Face terms; the same names as config.json.\nmodel:\n"));
  EXPECT_THAT(help, HasSubstr("  # default 256\n  hidden_size: <whole number>"));
  EXPECT_THAT(help, HasSubstr("    gate: <text>\n"));
  EXPECT_THAT(help, HasSubstr("  train: <list of text>\n"));
  EXPECT_THAT(help, HasSubstr("  recompute: <true or false>\n"));
}

TEST(ExamplesTest, EveryExampleResolves) {
  int count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(COHORT_EXAMPLES)) {
    if (entry.path().extension() != ".yaml") continue;
    auto config = LoadConfig(entry.path().string());
    ASSERT_TRUE(config.ok()) << config.status();
    const int ranks = config->parallel().has_expert() ? 4 * config->parallel().expert() : 1;
    auto resolved = ResolveConfig(*config, Facts(ranks));
    EXPECT_TRUE(resolved.ok()) << entry.path() << ": " << resolved.status();
    ++count;
  }
  EXPECT_GT(count, 0);
}

}  // namespace
}  // namespace cohort::runtime
