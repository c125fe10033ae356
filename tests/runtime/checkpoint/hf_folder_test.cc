#include "runtime/checkpoint/hf_folder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "runtime/checkpoint/weight_shards.h"
#include "tests/support/temp_folder.h"

namespace cohort::runtime {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

NamedTensor Named(const std::string& name, Shape shape, double value, DataType dtype = DataType::kF32) {
  Tensor tensor = Tensor::Empty(CpuDevice(), shape, DataType::kF32);
  for (int64_t i = 0; i < tensor.size(); ++i) tensor.data<float>()[i] = static_cast<float>(value + i);
  return {name, tensor, dtype};
}

// A dense matrix, a norm, a buffer, and experts 2 and 3 of 4: what one of two ranks holds.
class LoadParametersTest : public ::testing::Test {
 protected:
  LoadParametersTest() : group_("block") {
    config_.num_experts = 4;
    group_.Add("w", {2, 3}, Init::kNormal, 0.02, true);
    group_.Add("norm", {3}, Init::kOnes, 0, false);
    group_.AddStack({"mlp.experts.2.w1", "mlp.experts.3.w1"}, {2}, 0.02, Placement::kExpert);
    group_.AddBuffer("bias", {4});
    group_.Allocate(CpuDevice(), DataType::kBF16, /*trainable=*/true);
    for (const auto& parameter : group_.parameters())
      parameters_.push_back({parameter->name, parameter.get()});
    tensors_ = {Named("w", {2, 3}, 1.001), Named("norm", {3}, 5), Named("bias", {4}, 0.125)};
    for (int e = 0; e < 4; ++e) {
      tensors_.push_back(Named("mlp.experts." + std::to_string(e) + ".w1", {2}, 10 * e));
    }
  }

  absl::Status Load(int64_t shard_bytes = 1 << 20) {
    absl::Status status = WriteWeights(temp_.path(), tensors_, shard_bytes);
    if (!status.ok()) return status;
    auto folder = HfFolder::Open(temp_.path());
    if (!folder.ok()) return folder.status();
    return LoadParameters(*folder, config_, parameters_);
  }
  const Parameter& Of(const std::string& name) {
    for (const NamedParameter& parameter : parameters_) {
      if (parameter.name == name) return *parameter.parameter;
    }
    abort();
  }

  TempFolder temp_;
  ModelConfig config_;
  ParameterGroup group_;
  std::vector<NamedParameter> parameters_;
  std::vector<NamedTensor> tensors_;
};

TEST_F(LoadParametersTest, ConvertsToValueAndMaster) {
  for (int64_t shard_bytes : {1 << 20, 16}) {
    ASSERT_TRUE(Load(shard_bytes).ok()) << Load(shard_bytes);
    EXPECT_EQ(Of("w").value.dtype(), DataType::kBF16);
    EXPECT_THAT(ToHost(Of("w").value), ElementsAre(1, 2, 3, 4, 5, 6));
    EXPECT_EQ(ToHost(Of("w").master)[0], static_cast<double>(1.001f));
    EXPECT_THAT(ToHost(Of("mlp.experts.2.w1").master), ElementsAre(20, 21));
    EXPECT_THAT(ToHost(Of("mlp.experts.3.w1").value), ElementsAre(30, 31));
    EXPECT_THAT(ToHost(Of("bias").value), ElementsAre(0.125, 1.125, 2.125, 3.125));
    std::filesystem::remove(temp_.path() + "/model.safetensors");
  }
}

TEST_F(LoadParametersTest, HarmlessExtrasAreIgnored) {
  tensors_.push_back(Named("model.layers.0.self_attn.rotary_emb.inv_freq", {4}, 0));
  config_.tie_word_embeddings = true;
  tensors_.push_back(Named("lm_head.weight", {4}, 0));
  EXPECT_TRUE(Load().ok());
}

TEST_F(LoadParametersTest, ListsEverythingThatIsWrong) {
  tensors_[0] = Named("w", {3, 2}, 1);
  tensors_[1] = Named("norm", {3}, 1, DataType::kI32);
  tensors_[1].values = Tensor::FromHost(CpuDevice(), {3}, std::vector<int32_t>{1, 2, 3});
  tensors_.erase(tensors_.begin() + 2);
  tensors_.push_back(Named("w.bias", {3}, 0));
  tensors_.push_back(Named("lm_head.weight", {4}, 0));      // not tied here
  tensors_.push_back(Named("mlp.experts.4.w1", {2}, 0));    // of 4 experts
  tensors_.push_back(Named("mlp.experts.0.w9", {2}, 0));    // no such matrix
  tensors_.push_back(Named("other.experts.0.w1", {2}, 0));  // no such block
  const absl::Status status = Load();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  const std::string message(status.message());
  EXPECT_THAT(message, HasSubstr(temp_.path()));
  EXPECT_THAT(message, HasSubstr("missing: bias;"));
  EXPECT_THAT(message, HasSubstr("wrong shapes: w is [3,2] instead of [2,3]"));
  EXPECT_THAT(message, HasSubstr("not of a float type: norm is I32"));
  EXPECT_THAT(message, HasSubstr("unexpected: lm_head.weight, mlp.experts.0.w9, mlp.experts.4.w1, "
                                 "other.experts.0.w1, w.bias"));
}

TEST_F(LoadParametersTest, LongListsAreCut) {
  for (int i = 0; i < 100; ++i) tensors_.push_back(Named("extra" + std::to_string(i), {1}, 0));
  EXPECT_THAT(std::string(Load().message()), HasSubstr("and 95 more"));
}

TEST_F(LoadParametersTest, AFailedLoadChangesNothing) {
  ASSERT_TRUE(Load().ok());
  const std::vector<double> before = ToHost(Of("w").master);
  tensors_[0] = Named("w", {2, 3}, 7);
  tensors_.pop_back();
  EXPECT_FALSE(Load().ok());
  EXPECT_EQ(ToHost(Of("w").master), before);
}

TEST_F(LoadParametersTest, BoxesGetTheirPartOfTheWholeTensor) {
  tensors_ = {Named("rows", {3, 4}, 0), Named("columns", {3, 4}, 100), Named("middle", {2, 3, 2}, 200)};
  for (int part = 0; part < 4; ++part) {
    ParameterGroup group("block");
    const Split rows = {.dim = 0, .part = part, .parts = 4};  // the first has none
    const Split columns = {.dim = 1, .part = part, .parts = 4};
    group.Add("rows", {3, 4}, Init::kNormal, 0.02, true, Placement::kTensor, rows);
    group.Add("columns", {3, 4}, Init::kNormal, 0.02, true, Placement::kTensor, columns);
    group.Add("middle", {2, 3, 2}, Init::kNormal, 0.02, true, Placement::kTensor, columns);
    group.Allocate(CpuDevice(), DataType::kBF16, /*trainable=*/true);
    parameters_.clear();
    for (const auto& parameter : group.parameters())
      parameters_.push_back({parameter->name, parameter.get()});
    ASSERT_TRUE(Load().ok()) << Load();
    const std::vector<double> first = {4.0 * (part - 1), 4.0 * part - 3, 4.0 * part - 2, 4.0 * part - 1};
    EXPECT_EQ(ToHost(Of("rows").value), part == 0 ? std::vector<double>() : first);
    EXPECT_THAT(ToHost(Of("columns").master), ElementsAre(100 + part, 104 + part, 108 + part));
    if (part == 0) {
      EXPECT_THAT(ToHost(Of("middle").master), ElementsAre());
    } else {
      EXPECT_THAT(ToHost(Of("middle").master),
                  ElementsAre(198 + 2 * part, 199 + 2 * part, 204 + 2 * part, 205 + 2 * part));
    }
  }
}

TEST(OutsideOfTest, BlocksEmbeddingAndHeadOfOtherParts) {
  ModelConfig config;
  config.num_hidden_layers = 4;
  const Elsewhere middle =
      OutsideOf({.first_block = 1, .last_block = 3, .embedding = false, .head = false}, config);
  for (const char* name : {"model.layers.0.mlp.up_proj.weight", "model.layers.3.input_layernorm.weight",
                           "model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"}) {
    EXPECT_TRUE(middle(name)) << name;
  }
  for (const char* name : {"model.layers.1.mlp.up_proj.weight", "model.layers.2.x", "model.layers.4.x",
                           "model.layers.-1.x", "model.layers.x", "other"}) {
    EXPECT_FALSE(middle(name)) << name;
  }
  const Elsewhere all = OutsideOf({}, config);
  for (const char* name :
       {"model.layers.0.x", "model.layers.3.x", "model.norm.weight", "model.embed_tokens.weight"})
    EXPECT_FALSE(all(name)) << name;
}

class HfFolderTest : public ::testing::Test {
 protected:
  void PutIndex(const std::string& text) {
    std::ofstream(temp_.path() + "/model.safetensors.index.json") << text;
  }
  absl::Status Open() { return HfFolder::Open(temp_.path()).status(); }
  TempFolder temp_;
};

TEST_F(HfFolderTest, EmptyOrMissingFolder) {
  EXPECT_EQ(Open().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(Open().message()), HasSubstr("neither model.safetensors nor"));
  EXPECT_THAT(std::string(HfFolder::Open("/nonexistent").status().message()), HasSubstr("no such folder"));
}

TEST_F(HfFolderTest, BrokenIndexes) {
  const std::pair<std::string, std::string> cases[] = {
      {"{", "not valid JSON"},
      {"[]", "no object 'weight_map'"},
      {"{}", "no object 'weight_map'"},
      {R"({"weight_map":[]})", "no object 'weight_map'"},
      {R"({"weight_map":{"a":1}})", "the file of tensor 'a' is not a string"},
      {R"({"weight_map":{"a":"../x.safetensors"}})", "'../x.safetensors' of tensor 'a' is not a name"},
      {R"({"weight_map":{"a":""}})", "is not a name"},
      {R"({"weight_map":{"a":"gone.safetensors"}})", "the shard gone.safetensors (of tensor 'a') is missing"},
  };
  for (const auto& [text, message] : cases) {
    PutIndex(text);
    EXPECT_THAT(std::string(Open().message()), HasSubstr(message));
    EXPECT_THAT(std::string(Open().message()), HasSubstr("model.safetensors.index.json"));
  }
}

TEST_F(HfFolderTest, NamesThatTheShardDoesNotHave) {
  auto writer = SafetensorsWriter::Create(temp_.path() + "/s.safetensors", {{"a", DataType::kF32, {1}}});
  ASSERT_TRUE(writer->Write(Tensor::FromHost(CpuDevice(), {1}, DataType::kF32, {1})).ok());
  ASSERT_TRUE(writer->Finish().ok());
  PutIndex(R"({"weight_map":{"a":"s.safetensors","b":"s.safetensors"}})");
  EXPECT_THAT(std::string(Open().message()),
              HasSubstr("tensors that their shards do not have: b (s.safetensors)"));
  PutIndex(R"({"weight_map":{"a":"s.safetensors"}})");
  auto folder = HfFolder::Open(temp_.path());
  ASSERT_TRUE(folder.ok()) << folder.status();
  EXPECT_THAT(folder->names(), ElementsAre("a"));
  EXPECT_THAT(ToHost(*folder->Read("a")), ElementsAre(1));
  EXPECT_EQ(folder->Read("b").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(HfFolderTest, ABrokenShardIsNamed) {
  std::ofstream(temp_.path() + "/s.safetensors") << "junk";
  PutIndex(R"({"weight_map":{"a":"s.safetensors"}})");
  EXPECT_THAT(std::string(Open().message()), HasSubstr("s.safetensors"));
}

}  // namespace
}  // namespace cohort::runtime
