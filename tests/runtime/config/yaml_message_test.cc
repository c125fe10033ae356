#include "runtime/config/yaml_message.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <limits>

#include "cohort/v1/config.pb.h"
#include "google/protobuf/util/message_differencer.h"
#include "runtime/config/nearest_name.h"
#include "tests/support/temp_folder.h"

namespace cohort::runtime {
namespace {

using cohort::v1::TrainConfig;
using google::protobuf::util::MessageDifferencer;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

absl::Status Parse(const std::string& text) {
  TrainConfig config;
  return ParseYaml(text, "f.yaml", config);
}

TEST(ParseYamlTest, EveryTypeOfField) {
  TrainConfig config;
  ASSERT_TRUE(ParseYaml("# a comment\n"
                        "output: runs/a\n"
                        "seed: 18446744073709551615\n"
                        "model: {hidden_size: 64, tie_word_embeddings: true, router: {gate: sigmoid}}\n"
                        "data:\n"
                        "  train: [a, \"b\"]\n"
                        "  validation: c\n"
                        "train:\n"
                        "optimizer:\n"
                        "  lr: 3e-4\n"
                        "  eps: 1\n",
                        "f.yaml", config)
                  .ok());
  EXPECT_EQ(config.output(), "runs/a");
  EXPECT_EQ(config.seed(), std::numeric_limits<uint64_t>::max());
  EXPECT_EQ(config.model().hidden_size(), 64);
  EXPECT_TRUE(config.model().tie_word_embeddings());
  EXPECT_EQ(config.model().router().gate(), "sigmoid");
  EXPECT_THAT(config.data().train(), ElementsAre("a", "b"));
  EXPECT_THAT(config.data().validation(), ElementsAre("c"));
  EXPECT_DOUBLE_EQ(config.optimizer().lr(), 3e-4);
  EXPECT_EQ(config.optimizer().eps(), 1);
  EXPECT_FALSE(config.train().has_steps());
}

TEST(ParseYamlTest, EveryProblemNamesItsPlace) {
  const std::pair<std::string, std::string> cases[] = {
      {"", "f.yaml: the file is empty"},
      {"# only a comment\n", "f.yaml: the file is empty"},
      {"output: a\n---\noutput: b\n", "f.yaml: several YAML documents"},
      {"- a\n", "f.yaml:1: expected 'key: value' lines, found a list"},
      {"output", "f.yaml:1: expected 'key: value' lines, found 'output'"},
      {"output: a\nmodle: {}\n", "f.yaml:2: unknown key 'modle' at the top level; did you mean 'model'?"},
      {"train:\n  stesp: 3\n", "f.yaml:2: unknown key 'stesp' in section train; did you mean 'steps'?"},
      {"model:\n  router:\n    gtae: x\n",
       "f.yaml:3: unknown key 'gtae' in section model.router; did you mean 'gate'?"},
      {"lr: 3\n", "f.yaml:1: unknown key 'lr' at the top level; did you mean 'optimizer.lr'?"},
      {"zzzzzzzzz: 3\n",
       "f.yaml:1: unknown key 'zzzzzzzzz' at the top level; known keys: output, seed, model"},
      {"train:\n  steps: 1\n  steps: 2\n", "f.yaml:3: train.steps is given twice, first on line 2"},
      {"train: {}\ntrain: {}\n", "f.yaml:2: train is given twice, first on line 1"},
      {"train:\n\n  steps: many\n", "f.yaml:3: train.steps: expected a whole number, found 'many'"},
      {"train:\n  steps: 1.5\n", "f.yaml:2: train.steps: expected a whole number, found '1.5'"},
      {"train:\n  steps: \"5\"\n", "f.yaml:2: train.steps: expected a whole number, found text '5'"},
      {"train:\n  steps:\n", "f.yaml:2: train.steps: expected a whole number, found nothing"},
      {"train:\n  steps: [1]\n", "f.yaml:2: train.steps: expected a whole number, found a list"},
      {"train:\n  steps: 99999999999999999999\n", "f.yaml:2: train.steps: expected a whole number"},
      {"seed: -1\n", "f.yaml:1: seed: expected a whole number from 0 to 18446744073709551615, found '-1'"},
      {"train: {global_batch: 3000000000}\n",
       "f.yaml:1: train.global_batch: expected a whole number from -2147483648 to 2147483647"},
      {"train:\n  recompute: yes\n", "f.yaml:2: train.recompute: expected true or false, found 'yes'"},
      {"optimizer:\n  lr: fast\n", "f.yaml:2: optimizer.lr: expected a number, found 'fast'"},
      {"optimizer:\n  lr: nan\n", "f.yaml:2: optimizer.lr: expected a number, found 'nan'"},
      {"optimizer:\n  lr: 1e999\n", "f.yaml:2: optimizer.lr: expected a number, found '1e999'"},
      {"output:\n", "f.yaml:1: output: expected text, found nothing"},
      {"output: {a: b}\n", "f.yaml:1: output: expected text, found a section"},
      {"train: 5\n", "f.yaml:1: train: expected a section, found '5'"},
      {"train: [a]\n", "f.yaml:1: train: expected a section, found a list"},
      {"data:\n  train: [a, [b]]\n", "f.yaml:2: data.train: expected a list of text, found a list"},
      {"data:\n  train:\n", "f.yaml:2: data.train: expected a list of text, found nothing"},
      {"[a]: b\n", "f.yaml:1: expected a key, found a list"},
      {"output: a\n\ttrain: b\n", "f.yaml:2: not YAML: "},
      {"output: a\ntrain: {steps: 3\n", "f.yaml:3: not YAML: "},
      {"output: *missing\n", "f.yaml:1: not YAML: "},
      {"train: &a {<<: *a}\n", "f.yaml:1: unknown key '<<'"},
  };
  for (const auto& [text, message] : cases) {
    const absl::Status status = Parse(text);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(std::string(status.message()), StartsWith(message)) << text;
  }
  EXPECT_FALSE(Parse(std::string(100000, '[')).ok());
  EXPECT_FALSE(Parse(std::string("\xff\xfe\0\0x", 5)).ok());
}

TEST(ApplyOverrideTest, ReplacesFields) {
  TrainConfig config;
  ASSERT_TRUE(ParseYaml("output: a\ndata: {train: [x]}\n", "f.yaml", config).ok());
  for (const char* set : {"output=b: #c", "train.steps=7", "data.train=[p, q]", "model.router.gate=sigmoid",
                          "train.recompute=true", "optimizer.lr=1e-3", "data.validation=one"}) {
    EXPECT_TRUE(ApplyOverride(set, config).ok()) << ApplyOverride(set, config);
  }
  EXPECT_EQ(config.output(), "b: #c");
  EXPECT_EQ(config.train().steps(), 7);
  EXPECT_THAT(config.data().train(), ElementsAre("p", "q"));
  EXPECT_THAT(config.data().validation(), ElementsAre("one"));
  EXPECT_EQ(config.model().router().gate(), "sigmoid");
  EXPECT_TRUE(config.train().recompute());
}

TEST(ApplyOverrideTest, ChecksAsFilesDo) {
  const std::pair<std::string, std::string> cases[] = {
      {"train.steps", "--set train.steps: expected section.key=value"},
      {"=5", "--set =5: expected section.key=value"},
      {"trian.steps=5", "--set trian.steps=5: unknown key 'trian' at the top level; did you mean 'train'?"},
      {"train.stpes=5", "--set train.stpes=5: unknown key 'stpes' in section train; did you mean 'steps'?"},
      {"train.steps.x=5", "--set train.steps.x=5: train.steps is no section"},
      {"train=5", "--set train=5: train is a section"},
      {"train.steps=x", "--set train.steps=x: train.steps: expected a whole number, found 'x'"},
      {"train.steps=", "--set train.steps=: train.steps: expected a whole number, found nothing"},
      {"train.steps=[", "--set train.steps=[:1: not YAML"},
      {"data.train={a: b}", "--set data.train={a: b}: data.train: expected a list of text, found a section"},
      {"train..steps=1", "--set train..steps=1: unknown key ''"},
  };
  for (const auto& [set, message] : cases) {
    TrainConfig config;
    const absl::Status status = ApplyOverride(set, config);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), StartsWith(message));
  }
}

TEST(LoadYamlTest, FilesThatAreNone) {
  TempFolder temp;
  TrainConfig config;
  const absl::Status missing = LoadYaml(temp.path() + "/no.yaml", {}, config);
  EXPECT_EQ(missing.code(), absl::StatusCode::kNotFound) << missing;
  EXPECT_FALSE(LoadYaml(temp.path(), {}, config).ok());
  std::ofstream(temp.path() + "/big.yaml") << std::string(2 << 20, 'a');
  EXPECT_THAT(std::string(LoadYaml(temp.path() + "/big.yaml", {}, config).message()),
              HasSubstr("are no configuration"));
}

TEST(ToYamlTest, ReadsBackTheSame) {
  TrainConfig config;
  config.set_output("a \"quoted\"\n#: null");
  config.set_seed(std::numeric_limits<uint64_t>::max());
  config.mutable_model()->mutable_router()->set_gate("null");
  config.mutable_data()->add_train("x, y");
  config.mutable_data()->add_train("~");
  config.mutable_train()->set_recompute(true);
  config.mutable_train()->set_steps(-5);
  config.mutable_optimizer()->set_lr(0.1 + 0.2);
  config.mutable_optimizer()->set_eps(1e-300);
  config.mutable_schedule();
  TrainConfig back;
  ASSERT_TRUE(ParseYaml(ToYaml(config), "f.yaml", back).ok()) << ToYaml(config);
  back.mutable_schedule();
  EXPECT_TRUE(MessageDifferencer::Equals(config, back)) << ToYaml(config);
}

TEST(NearestNameTest, SlipsOfTheHand) {
  EXPECT_EQ(EditDistance("", "abc"), 3);
  EXPECT_EQ(EditDistance("kitten", "sitting"), 3);
  EXPECT_EQ(EditDistance("modle", "model"), 1);
  EXPECT_EQ(NearestName("hiden_size", {"head_dim", "hidden_size"}), "hidden_size");
  EXPECT_EQ(NearestName("num_attention_head", {"num_experts", "num_attention_heads"}), "num_attention_heads");
  EXPECT_EQ(NearestName("q", {"lr", "eps"}), "");
  EXPECT_EQ(NearestName("entirely", {"different"}), "");
}

}  // namespace
}  // namespace cohort::runtime
