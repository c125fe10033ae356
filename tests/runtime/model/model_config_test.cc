#include "runtime/model/model_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <numbers>

#include "runtime/model/families.h"
#include "runtime/model/rope_table.h"
#include "tests/support/tiny_model.h"

namespace cohort::runtime {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// As meta-llama/Llama-3.2-1B publishes it.
json Llama32() {
  return json::parse(R"({
    "architectures": ["LlamaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
    "bos_token_id": 128000, "eos_token_id": [128001, 128008, 128009], "head_dim": 64, "hidden_act": "silu",
    "hidden_size": 2048, "initializer_range": 0.02, "intermediate_size": 8192,
    "max_position_embeddings": 131072, "mlp_bias": false, "model_type": "llama", "num_attention_heads": 32,
    "num_hidden_layers": 16, "num_key_value_heads": 8, "pretraining_tp": 1, "rms_norm_eps": 1e-05,
    "rope_scaling": {"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
                     "original_max_position_embeddings": 8192, "rope_type": "llama3"},
    "rope_theta": 500000.0, "tie_word_embeddings": true, "torch_dtype": "bfloat16", "use_cache": true,
    "vocab_size": 128256})");
}

// As Qwen/Qwen3-30B-A3B publishes it.
json Qwen3Moe() {
  return json::parse(R"({
    "architectures": ["Qwen3MoeForCausalLM"], "attention_bias": false, "bos_token_id": 151643,
    "decoder_sparse_step": 1, "eos_token_id": 151645, "head_dim": 128, "hidden_act": "silu",
    "hidden_size": 2048, "initializer_range": 0.02, "intermediate_size": 6144,
    "max_position_embeddings": 40960, "max_window_layers": 48, "mlp_only_layers": [], "model_type": "qwen3_moe",
    "moe_intermediate_size": 768, "norm_topk_prob": true, "num_attention_heads": 32, "num_experts": 128,
    "num_experts_per_tok": 8, "num_hidden_layers": 48, "num_key_value_heads": 4, "output_router_logits": false,
    "rms_norm_eps": 1e-06, "rope_scaling": null, "rope_theta": 1000000.0, "router_aux_loss_coef": 0.001,
    "sliding_window": null, "tie_word_embeddings": false, "torch_dtype": "bfloat16",
    "use_sliding_window": false, "vocab_size": 151936})");
}

// As mistralai/Mixtral-8x7B-v0.1 publishes it.
json Mixtral() {
  return json::parse(R"({
    "architectures": ["MixtralForCausalLM"], "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu",
    "hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 14336,
    "max_position_embeddings": 32768, "model_type": "mixtral", "num_attention_heads": 32,
    "num_experts_per_tok": 2, "num_hidden_layers": 32, "num_key_value_heads": 8, "num_local_experts": 8,
    "rms_norm_eps": 1e-05, "rope_theta": 1000000.0, "router_aux_loss_coef": 0.02, "sliding_window": null,
    "tie_word_embeddings": false, "torch_dtype": "bfloat16", "vocab_size": 32000})");
}

absl::StatusOr<ModelConfig> Parse(const json& root) {
  return ModelConfig::FromJson(root.dump(), "config.json");
}

ModelConfig MustParse(const json& root) {
  const auto config = Parse(root);
  EXPECT_TRUE(config.ok()) << config.status();
  return config.value_or(ModelConfig());
}

TEST(ModelConfigTest, ReadsLlama) {
  const ModelConfig config = MustParse(Llama32());
  EXPECT_EQ(config.head_dim, 64);
  EXPECT_EQ(config.rope_scaling.type, "llama3");
  EXPECT_EQ(config.rope_scaling.factor, 32);
  EXPECT_EQ(config.rope_theta, 500000);
  EXPECT_TRUE(config.tie_word_embeddings);
  EXPECT_FALSE(config.qk_norm);
  EXPECT_THAT(config.eos_token_ids, ElementsAre(128001, 128008, 128009));
  EXPECT_EQ(config.bos_token_id, 128000);
  EXPECT_EQ(config.NumParameters(), 1235814400);  // as the model's card says: 1.23 B
}

TEST(ModelConfigTest, ReadsQwen3Moe) {
  const ModelConfig config = MustParse(Qwen3Moe());
  EXPECT_TRUE(config.qk_norm);
  EXPECT_EQ(config.num_experts, 128);
  EXPECT_EQ(config.moe_intermediate_size, 768);
  EXPECT_TRUE(config.IsSparse(0));
  EXPECT_EQ(config.NumParameters(), 30532122624);  // 30.5 B
  // 3.3 B are active, the embedding lookup among them.
  EXPECT_NEAR(static_cast<double>(config.NumActiveParameters() + 151936 * 2048), 3.35e9, 0.02e9);
}

TEST(ModelConfigTest, ReadsMixtral) {
  const ModelConfig config = MustParse(Mixtral());
  EXPECT_EQ(config.num_experts, 8);
  EXPECT_EQ(config.moe_intermediate_size, 14336);
  EXPECT_EQ(config.head_dim, 128);
  EXPECT_TRUE(config.router.normalize_weights);
  EXPECT_EQ(config.router.aux_loss_coef, 0.02);
  EXPECT_EQ(config.NumParameters(), 46702792704);  // 46.7 B
}

TEST(ModelConfigTest, ReadsFilesOfTransformers5) {
  json root = Llama32();
  root["rope_parameters"] = root["rope_scaling"];
  root["rope_parameters"]["rope_theta"] = 123.0;
  root["dtype"] = "float16";
  for (const char* old : {"rope_scaling", "rope_theta", "torch_dtype"}) root.erase(old);
  const ModelConfig config = MustParse(root);
  EXPECT_EQ(config.rope_theta, 123);
  EXPECT_EQ(config.rope_scaling.type, "llama3");
  EXPECT_EQ(config.torch_dtype, "float16");
}

TEST(ModelConfigTest, SparseBlocksAreThoseThatTheStepAndTheListSay) {
  json root = Qwen3Moe();
  root["decoder_sparse_step"] = 2;
  root["mlp_only_layers"] = {3};
  const ModelConfig config = MustParse(root);
  std::vector<int> sparse;
  for (int i = 0; i < 8; ++i) {
    if (config.IsSparse(i)) sparse.push_back(i);
  }
  EXPECT_THAT(sparse, ElementsAre(1, 5, 7));
}

TEST(ModelConfigTest, CountsAreThoseOfTheModel) {
  for (const char* type : {"llama", "qwen3"}) {
    for (const bool tied : {false, true}) {
      ModelConfig config = TinyConfig(type);
      config.tie_word_embeddings = tied;
      const auto decoder = MakeDecoder(config, ReferenceDevice(), {.compute = DataType::kF64});
      int64_t count = 0;
      for (const Parameter* parameter : AllParameters(*decoder)) count += parameter->value.size();
      EXPECT_EQ(config.NumParameters(), count) << type;
      EXPECT_EQ(config.NumActiveParameters(), count - (tied ? 0 : 19 * 10)) << type;
      EXPECT_EQ(config.TrainFlopsPerToken(8) - config.TrainFlopsPerToken(0), 6.0 * 2 * 16 * 8) << type;
    }
  }
}

TEST(ModelConfigTest, WhatIsWrittenReadsTheSame) {
  std::vector<ModelConfig> configs = {MustParse(Llama32()), MustParse(Qwen3Moe()), MustParse(Mixtral())};
  for (const Family& family : Families()) configs.push_back(TinyConfig(family.model_type));
  ModelConfig ours = TinyConfig("qwen3_moe");
  ours.router = {.gate = "sigmoid",
                 .normalize_weights = true,
                 .aux_loss_coef = 0,
                 .z_loss_coef = 0.001,
                 .bias_update_rate = 0.01,
                 .capacity_factor = 1.25};
  ours.mlp_only_layers = {0};
  ours.rope_scaling = {.type = "linear", .factor = 4};
  configs.push_back(ours);
  for (const ModelConfig& config : configs) {
    const auto again = ModelConfig::FromJson(config.ToJson(), "config.json");
    ASSERT_TRUE(again.ok()) << again.status();
    EXPECT_EQ(again->ToJson(), config.ToJson());
    EXPECT_EQ(again->NumParameters(), config.NumParameters());
    EXPECT_EQ(again->router.gate, config.router.gate);
    EXPECT_EQ(again->router.capacity_factor, config.router.capacity_factor);
    EXPECT_EQ(again->router.normalize_weights, config.router.normalize_weights);
    EXPECT_EQ(again->qk_norm, config.qk_norm);
  }
}

struct Broken {
  json patch;
  const char* names;  // what the message must say
};

TEST(ModelConfigTest, ErrorsNameTheFileAndTheField) {
  const std::vector<Broken> cases = {
      {{{"model_type", "gpt_neox"}}, "Known: llama, mistral, qwen3, mixtral, qwen3_moe"},
      {{{"model_type", nullptr}}, "\"model_type\" is missing"},
      {{{"model_type", 3}}, "\"model_type\" must be a string"},
      {{{"vocab_size", nullptr}}, "\"vocab_size\" is missing"},
      {{{"vocab_size", "many"}}, "\"vocab_size\" must be an integer, it is \"many\""},
      {{{"vocab_size", 0}}, "\"vocab_size\" must be from 1"},
      {{{"hidden_size", 2048.5}}, "\"hidden_size\" must be an integer"},
      {{{"hidden_size", -8}}, "\"hidden_size\" must be from 1"},
      {{{"hidden_size", 18446744073709551615u}}, "\"hidden_size\" must be an integer"},
      {{{"num_hidden_layers", 0}}, "\"num_hidden_layers\""},
      {{{"num_attention_heads", 0}}, "\"num_attention_heads\""},
      {{{"num_key_value_heads", 7}}, "\"num_key_value_heads\" must divide"},
      {{{"num_key_value_heads", 0}}, "\"num_key_value_heads\" must be from 1"},
      {{{"head_dim", 63}}, "\"head_dim\" must be even"},
      {{{"head_dim", nullptr}, {"hidden_size", 2049}}, "\"head_dim\" is missing"},
      {{{"rms_norm_eps", 0}}, "\"rms_norm_eps\""},
      {{{"rms_norm_eps", nullptr}}, "\"rms_norm_eps\" is missing"},
      {{{"rope_theta", "1e6"}}, "\"rope_theta\" must be a number"},
      {{{"rope_theta", -1}}, "\"rope_theta\" must be above 0"},
      {{{"rope_scaling", 4}}, "\"rope_scaling\" must be an object"},
      {{{"rope_scaling", {{"rope_type", "yarn"}, {"factor", 4}}}}, "must be default, linear or llama3"},
      {{{"rope_scaling", {{"rope_type", "linear"}}}}, "rope_scaling: \"factor\" is missing"},
      {{{"rope_scaling", {{"rope_type", "llama3"}, {"factor", 8}}}}, "\"low_freq_factor\" is missing"},
      {{{"attention_bias", true}}, "\"attention_bias\" is true, but only false is supported"},
      {{{"mlp_bias", true}}, "\"mlp_bias\""},
      {{{"hidden_act", "gelu"}}, "\"hidden_act\" is \"gelu\""},
      {{{"sliding_window", 4096}}, "\"sliding_window\" is 4096"},
      {{{"quantization_config", {{"bits", 4}}}}, "\"quantization_config\""},
      {{{"layer_types", {"full_attention", "sliding_attention"}}}, "\"layer_types\""},
      {{{"tie_word_embeddings", "yes"}}, "\"tie_word_embeddings\" must be true or false"},
      {{{"eos_token_id", "</s>"}}, "\"eos_token_id\" must be an integer"},
      {{{"eos_token_id", {1, 2.5}}}, "\"eos_token_id\" must be an integer"},
  };
  for (const Broken& broken : cases) {
    json root = Llama32();
    root.update(broken.patch);
    const auto config = Parse(root);
    EXPECT_EQ(config.status().code(), absl::StatusCode::kInvalidArgument) << broken.patch;
    EXPECT_THAT(std::string(config.status().message()),
                AllOf(HasSubstr("config.json: "), HasSubstr(broken.names)));
  }
}

TEST(ModelConfigTest, ErrorsOfExperts) {
  const std::vector<Broken> cases = {
      {{{"num_experts", nullptr}}, "\"num_experts\" is missing"},
      {{{"num_experts_per_tok", 129}}, "\"num_experts_per_tok\" must be from 1 to 128"},
      {{{"moe_intermediate_size", nullptr}}, "\"moe_intermediate_size\" is missing"},
      {{{"mlp_only_layers", {48}}}, "\"mlp_only_layers\" names block 48 of 48"},
      {{{"decoder_sparse_step", 0}}, "\"decoder_sparse_step\""},
      {{{"router", {{"capacity_factor", -1}}}}, "\"router.capacity_factor\""},
      {{{"router_aux_loss_coef", -1}}, "\"router_aux_loss_coef\""},
      {{{"num_key_value_heads", nullptr}}, "\"num_key_value_heads\" is missing"},
  };
  for (const Broken& broken : cases) {
    json root = Qwen3Moe();
    root.update(broken.patch);
    EXPECT_THAT(std::string(Parse(root).status().message()), HasSubstr(broken.names)) << broken.patch;
  }
  json mixtral = Mixtral();
  mixtral["norm_topk_prob"] = false;
  EXPECT_THAT(std::string(Parse(mixtral).status().message()), HasSubstr("\"norm_topk_prob\" must be true"));
}

TEST(ModelConfigTest, AWindowThatIsOffOrHidesNothingIsAccepted) {
  json root = Llama32();
  root["sliding_window"] = 4096;
  root["use_sliding_window"] = false;
  EXPECT_TRUE(Parse(root).ok()) << Parse(root).status();
  root["use_sliding_window"] = true;
  root["max_position_embeddings"] = 4096;
  EXPECT_TRUE(Parse(root).ok()) << Parse(root).status();
}

TEST(ModelConfigTest, FilesThatAreNoConfigs) {
  for (const char* text : {"", "{", "[1]", "{\"model_type\": \"llama\"} x", "\xff\xfe"}) {
    const auto config = ModelConfig::FromJson(text, "here/config.json");
    EXPECT_EQ(config.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(config.status().message()), HasSubstr("here/config.json"));
  }
  const auto missing = ModelConfig::Load("/nonexistent/model");
  EXPECT_EQ(missing.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(missing.status().message()), HasSubstr("/nonexistent/model/config.json"));
}

TEST(FamiliesTest, ExpertNamesAreHuggingFaces) {
  const std::string prefix = "model.layers.3.";
  const ExpertNames& qwen = FindFamily("qwen3_moe")->expert_names;
  EXPECT_EQ(qwen.Router(prefix), "model.layers.3.mlp.gate.weight");
  EXPECT_EQ(qwen.Expert(prefix, 12, Projection::kDown), "model.layers.3.mlp.experts.12.down_proj.weight");
  EXPECT_EQ(qwen.SharedPrefix(prefix), "model.layers.3.mlp.shared_expert.");
  const ExpertNames& mixtral = FindFamily("mixtral")->expert_names;
  EXPECT_EQ(mixtral.Router(prefix), "model.layers.3.block_sparse_moe.gate.weight");
  EXPECT_EQ(mixtral.Expert(prefix, 0, Projection::kGate),
            "model.layers.3.block_sparse_moe.experts.0.w1.weight");
  EXPECT_EQ(mixtral.Expert(prefix, 0, Projection::kUp),
            "model.layers.3.block_sparse_moe.experts.0.w3.weight");
  EXPECT_EQ(mixtral.Expert(prefix, 0, Projection::kDown),
            "model.layers.3.block_sparse_moe.experts.0.w2.weight");
}

// Llama 3's scaling keeps short wavelengths, divides long ones by the factor, and goes from one to the other.
TEST(RopeTableTest, Llama3KeepsShortWavesAndStretchesLongOnes) {
  ModelConfig config = MustParse(Llama32());
  const std::vector<double> scaled = RopeFrequencies(config);
  config.rope_scaling.type = "default";
  const std::vector<double> plain = RopeFrequencies(config);
  ASSERT_EQ(scaled.size(), 32u);
  for (size_t i = 0; i < plain.size(); ++i) {
    EXPECT_NEAR(plain[i], std::pow(500000.0, -2.0 * static_cast<double>(i) / 64), 1e-15);
    const double wave = 2 * std::numbers::pi / plain[i];
    if (wave < 8192.0 / 4) {
      EXPECT_EQ(scaled[i], plain[i]);
    } else if (wave > 8192) {
      EXPECT_DOUBLE_EQ(scaled[i], plain[i] / 32);
    } else {
      EXPECT_LT(scaled[i], plain[i]);
      EXPECT_GT(scaled[i], plain[i] / 32);
    }
  }
  // Pair 16 turns between one and four times within 8192 positions.
  const double smooth = (8192.0 * plain[16] / (2 * std::numbers::pi) - 1) / 3;
  EXPECT_DOUBLE_EQ(scaled[16], (1 - smooth) * plain[16] / 32 + smooth * plain[16]);
}

TEST(RopeTableTest, RowsAreCosinesThenSines) {
  ModelConfig config = TinyConfig("llama");
  config.rope_scaling = {.type = "linear", .factor = 2};
  const std::vector<double> row = ToHost(MakeRopeTable(config, ReferenceDevice()).Row(5));
  ASSERT_EQ(row.size(), 4u);
  EXPECT_DOUBLE_EQ(row[0], std::cos(2.5));
  EXPECT_DOUBLE_EQ(row[1], std::cos(2.5 / 100));
  EXPECT_DOUBLE_EQ(row[2], std::sin(2.5));
  EXPECT_DOUBLE_EQ(row[3], std::sin(2.5 / 100));
}

}  // namespace
}  // namespace cohort::runtime
