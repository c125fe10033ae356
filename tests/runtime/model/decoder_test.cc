// Parameters, their groups and initial values, hooks, and feed-forwards from a factory.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "runtime/model/mlp.h"
#include "tests/support/tiny_model.h"

namespace cohort::runtime {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(ParameterGroupTest, BucketsAreFlatAndInOrder) {
  ParameterGroup group("g");
  Parameter* a = group.Add("a", {2, 3}, Init::kNormal, 1, true);
  Parameter* norm = group.Add("norm", {3}, Init::kOnes, 0, false);
  const auto stack = group.AddStack({"e0", "e1", "e2"}, {2, 2}, 1, Placement::kExpert);
  Parameter* b = group.Add("b", {1, 4}, Init::kNormal, 1, true);
  Parameter* bias = group.AddBuffer("bias", {5});
  group.Allocate(CpuDevice(), DataType::kBF16, true);
  group.Initialize(3);

  ASSERT_EQ(group.buckets().size(), 3u);
  EXPECT_THAT(group.buckets()[0].parameters, ElementsAre(a, b));
  EXPECT_THAT(group.buckets()[1].parameters, ElementsAre(norm));
  EXPECT_THAT(group.buckets()[2].parameters, ElementsAre(stack[0], stack[1], stack[2]));
  EXPECT_EQ(b->value.raw(), group.buckets()[0].value.Slice(6, 10).raw());
  EXPECT_EQ(b->grad.raw(), group.buckets()[0].grad.Slice(6, 10).raw());
  EXPECT_EQ(b->value.dtype(), DataType::kBF16);
  EXPECT_EQ(b->master.dtype(), DataType::kF32);
  EXPECT_EQ(ToHost(norm->value), std::vector<double>(3, 1.0));
  EXPECT_EQ(bias->value.raw(), bias->master.raw());
  EXPECT_EQ(bias->value.dtype(), DataType::kF32);
  EXPECT_EQ(ToHost(bias->value), std::vector<double>(5, 0.0));
  EXPECT_FALSE(bias->grad.defined());

  const Tensor stacked = StackedValue(stack);
  EXPECT_EQ(stacked.shape(), (Shape{3, 2, 2}));
  EXPECT_EQ(ToHost(stacked.Row(1)), ToHost(stack[1]->value));
  EXPECT_EQ(StackedGrad(stack).dtype(), DataType::kF32);

  // A strategy may replace the flat memory: the views follow.
  group.buckets()[0].value = Tensor::Zeros(CpuDevice(), {10}, DataType::kBF16);
  group.buckets()[0].Bind();
  EXPECT_EQ(ToHost(b->value), std::vector<double>(4, 0.0));
}

TEST(ParameterGroupTest, InitialValuesDependOnTheSeedAndTheNameAlone) {
  const auto values = [](std::vector<std::string> names, const std::string& wanted, uint64_t seed,
                         DataType compute, bool trainable) {
    ParameterGroup group("g");
    for (const std::string& name : names) group.Add(name, {64, 64}, Init::kNormal, 0.5, true);
    group.Allocate(CpuDevice(), compute, trainable);
    group.Initialize(seed);
    for (const auto& parameter : group.parameters()) {
      if (parameter->name == wanted) return ToHost(parameter->value);
    }
    return std::vector<double>();
  };
  const auto x = values({"x"}, "x", 1, DataType::kF32, true);
  EXPECT_EQ(values({"w", "x"}, "x", 1, DataType::kF32, false), x);
  EXPECT_NE(values({"w", "x"}, "w", 1, DataType::kF32, false), x);
  EXPECT_NE(values({"x"}, "x", 2, DataType::kF32, true), x);
  EXPECT_LT(RelativeError(values({"x"}, "x", 1, DataType::kBF16, true), x), 4e-3);
  double mean = 0;
  for (double value : x) mean += value / 4096;
  EXPECT_NEAR(mean, 0, 0.03);
  EXPECT_NEAR(Norm(x) / 64, 0.5, 0.02);
}

TEST(DecoderTest, NamesAndShapesAreHuggingFaces) {
  const auto decoder = MakeDecoder(TinyConfig("qwen3"), CpuDevice(), {});
  std::vector<std::string> names;
  for (const Parameter* parameter : AllParameters(*decoder)) {
    std::string text = parameter->name;
    for (int64_t dim : parameter->shape) absl::StrAppend(&text, " ", dim);
    if (text.find("layers.1.") == std::string::npos) names.push_back(text);
    EXPECT_EQ(parameter->decay, parameter->shape.size() == 2) << parameter->name;
  }
  EXPECT_THAT(
      names,
      testing::UnorderedElementsAre(
          "model.embed_tokens.weight 19 10", "model.layers.0.input_layernorm.weight 10",
          "model.layers.0.post_attention_layernorm.weight 10", "model.layers.0.self_attn.q_proj.weight 16 10",
          "model.layers.0.self_attn.k_proj.weight 8 10", "model.layers.0.self_attn.v_proj.weight 8 10",
          "model.layers.0.self_attn.o_proj.weight 10 16", "model.layers.0.self_attn.q_norm.weight 4",
          "model.layers.0.self_attn.k_norm.weight 4", "model.layers.0.mlp.gate_proj.weight 14 10",
          "model.layers.0.mlp.up_proj.weight 14 10", "model.layers.0.mlp.down_proj.weight 10 14",
          "model.norm.weight 10", "lm_head.weight 19 10"));
  EXPECT_EQ(decoder->Find("model.layers.2.mlp.up_proj.weight"), nullptr);
}

// Residual projections start smaller by sqrt(2 blocks).
TEST(DecoderTest, InitialSpreads) {
  const ModelConfig config = SmallConfig("llama");
  const auto decoder = MakeDecoder(config, CpuDevice(), {});
  const auto spread = [&](const std::string& name) {
    const std::vector<double> values = ToHost(decoder->Find(name)->value);
    return Norm(values) / std::sqrt(static_cast<double>(values.size()));
  };
  EXPECT_NEAR(spread("model.layers.1.mlp.up_proj.weight"), 0.1, 0.004);
  EXPECT_NEAR(spread("model.embed_tokens.weight"), 0.1, 0.004);
  EXPECT_NEAR(spread("model.layers.1.mlp.down_proj.weight"), 0.1 / std::sqrt(6.0), 0.002);
  EXPECT_NEAR(spread("model.layers.1.self_attn.o_proj.weight"), 0.1 / std::sqrt(6.0), 0.002);
}

TEST(DecoderTest, RefusesWhatItCannotDo) {
  const auto create = [](const ModelConfig& config, Device& device, DecoderOptions options) {
    return Decoder::Create(config, device, std::move(options)).status();
  };
  ModelConfig config = TinyConfig("llama");
  EXPECT_THAT(std::string(create(config, CpuDevice(), {.compute = DataType::kF64}).message()),
              HasSubstr("f64 on cpu"));
  EXPECT_FALSE(create(config, ReferenceDevice(), {.compute = DataType::kF32}).ok());
  EXPECT_THAT(std::string(create(TinyConfig("mixtral"), CpuDevice(), {}).message()), HasSubstr("sparse"));
  config.head_dim = 3;
  EXPECT_THAT(std::string(create(config, CpuDevice(), {}).message()), HasSubstr("head_dim"));

  const auto decoder = MakeDecoder(TinyConfig("llama"), CpuDevice(), {});
  TokenBatch batch = RandomBatch(CpuDevice(), {5, 3}, 19, 1);
  batch.host_offsets.pop_back();
  EXPECT_EQ(decoder->Evaluate(batch).status().code(), absl::StatusCode::kInvalidArgument);
  const auto refuse = [&](const TokenBatch& batch, const char* message) {
    EXPECT_EQ(decoder->ForwardBackward(batch, {}).status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(decoder->Logits(batch).status().message()), HasSubstr(message));
  };
  refuse(RandomBatch(CpuDevice(), {65}, 19, 1),
         "position 64 in a batch for a model whose max_position_embeddings is 64");
  refuse(PackBatch(CpuDevice(), {{1, 18}, {19}}), "token 19 in a batch for a model whose vocab_size is 19");
  refuse(PackBatch(CpuDevice(), {{-1, 2}}), "token -1");
}

TEST(DecoderTest, IsRefusedBeforeItTakesMoreMemoryThanThereIs) {
  const ModelConfig config = TinyConfig("llama");
  int64_t parameters = 0;
  const auto small = MakeDecoder(config, CpuDevice(), {});
  for (ParameterGroup& group : small->groups()) {
    for (const auto& parameter : group.parameters()) parameters += parameter->value.size();
  }
  const auto create = [&](DataType compute, bool trainable, int64_t limit) {
    return Decoder::Create(config, CpuDevice(),
                           {.compute = compute, .trainable = trainable, .memory_limit = limit})
        .status();
  };
  // Bytes a parameter: bf16 alone; or value, master, gradient and two moments, the first two one in f32.
  EXPECT_EQ(create(DataType::kBF16, false, 2 * parameters), absl::OkStatus());
  EXPECT_EQ(create(DataType::kBF16, false, 2 * parameters - 1).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(create(DataType::kBF16, true, 18 * parameters), absl::OkStatus());
  EXPECT_EQ(create(DataType::kBF16, true, 18 * parameters - 1).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(create(DataType::kF32, true, 16 * parameters), absl::OkStatus());
  EXPECT_EQ(create(DataType::kF32, true, 16 * parameters - 1).code(), absl::StatusCode::kResourceExhausted);
  ModelConfig vast = config;
  vast.vocab_size = 1 << 24;
  vast.hidden_size = vast.intermediate_size = 1 << 16;
  const absl::Status status = Decoder::Create(vast, CpuDevice(), {}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("too large"));
}

class HooksTest : public testing::TestWithParam<bool> {
 protected:
  std::unique_ptr<Decoder> Make(bool recompute) {
    ModelConfig config = TinyConfig("llama");
    config.tie_word_embeddings = GetParam();
    auto decoder = MakeDecoder(config, CpuDevice(), {.recompute = recompute});
    const auto hook = [this](const char* name) {
      return [this, name](int group) {
        calls_.push_back(absl::StrCat(name, group));
        return calls_.back() == fail_at_ ? absl::UnavailableError("a peer is gone") : absl::OkStatus();
      };
    };
    decoder->SetHooks({.before_forward = hook("+f"),
                       .after_forward = hook("-f"),
                       .before_backward = hook("+b"),
                       .after_backward_input = nullptr,
                       .after_backward = hook("-b")});
    return decoder;
  }

  std::vector<std::string> calls_;
  std::string fail_at_;
};

TEST_P(HooksTest, SurroundEveryUseOfAGroup) {
  const TokenBatch batch = RandomBatch(CpuDevice(), {5, 3}, 19, 1);
  for (const bool recompute : {false, true}) {
    const auto decoder = Make(recompute);
    ASSERT_TRUE(decoder->ForwardBackward(batch, {}).ok());
    if (GetParam()) {
      EXPECT_THAT(calls_, ElementsAre("+f0", "-f0", "+f1", "-f1", "+f2", "-f2", "+f3", "+b0", "+b3", "-b3",
                                      "+b2", "-b2", "+b1", "-b1", "-b0"));
    } else {
      EXPECT_THAT(calls_, ElementsAre("+f0", "-f0", "+f1", "-f1", "+f2", "-f2", "+f3", "+b3", "-b3", "+b2",
                                      "-b2", "+b1", "-b1", "+b0", "-b0"));
    }
    calls_.clear();
    ASSERT_TRUE(decoder->Evaluate(batch).ok());
    if (GetParam()) {
      EXPECT_THAT(calls_, ElementsAre("+f0", "-f0", "+f1", "-f1", "+f2", "-f2", "+f0", "+f3", "-f0", "-f3"));
    } else {
      EXPECT_THAT(calls_, ElementsAre("+f0", "-f0", "+f1", "-f1", "+f2", "-f2", "+f3", "-f3"));
    }
    calls_.clear();
  }
}

TEST_P(HooksTest, AnErrorEndsTheStep) {
  const TokenBatch batch = RandomBatch(CpuDevice(), {5, 3}, 19, 1);
  for (const char* at : {"+f0", "-f1", "+f3", "+b2", "-b1", "-b0"}) {
    const auto decoder = Make(false);
    calls_.clear();
    fail_at_ = at;
    EXPECT_EQ(decoder->ForwardBackward(batch, {}).status().code(), absl::StatusCode::kUnavailable) << at;
    EXPECT_EQ(calls_.back(), at);
  }
}

INSTANTIATE_TEST_SUITE_P(Embeddings, HooksTest, testing::Bool(),
                         [](const auto& info) { return info.param ? "tied" : "untied"; });

// A mixture of one expert that tells what it was given.
class Recorder final : public FeedForward {
 public:
  Recorder(const ModelConfig& config, const std::string& prefix, ParameterGroup& group)
      : mlp_(config, FamilyOf(config).expert_names.SharedPrefix(prefix), config.moe_intermediate_size,
             WholeTensors(), group),
        experts_(config.num_experts) {}

  absl::StatusOr<Tensor> Forward(const FeedForwardInput& input, std::unique_ptr<Saved>* saved,
                                 LossSums* sums) override {
    if (fail_) return absl::UnavailableError("an expert is gone");
    if (sums != nullptr) {
      sums->aux_loss += 0.5 / input.scale.sequences;
      sums->expert_load.push_back(std::vector<int64_t>(experts_, input.batch->num_tokens()));
    }
    return mlp_.Forward(input, saved, nullptr);
  }
  bool divided() const override { return false; }
  bool only_enqueues() const override { return false; }
  absl::StatusOr<Tensor> BackwardInput(const Tensor& dy, Saved& saved, const Meanwhile& meanwhile) override {
    return mlp_.BackwardInput(dy, saved, meanwhile);
  }
  void BackwardWeight(Saved& saved, const Meanwhile& meanwhile) override {
    mlp_.BackwardWeight(saved, meanwhile);
  }
  void UpdateBalance(const std::vector<int64_t>& load) override { load_ = load; }

  bool fail_ = false;
  std::vector<int64_t> load_;

 private:
  Mlp mlp_;
  int64_t experts_;
};

TEST(ExpertsTest, SparseBlocksUseTheFactory) {
  ModelConfig config = TinyConfig("qwen3_moe");
  config.num_hidden_layers = 4;
  config.decoder_sparse_step = 2;
  std::vector<Recorder*> made;
  std::vector<int> layers;
  const auto factory = [&](const ModelConfig& config, int layer, const std::string& prefix, Device&, DataType,
                           ParameterGroup& group) -> absl::StatusOr<std::unique_ptr<FeedForward>> {
    auto recorder = std::make_unique<Recorder>(config, prefix, group);
    made.push_back(recorder.get());
    layers.push_back(layer);
    return recorder;
  };
  for (const bool recompute : {false, true}) {
    made.clear();
    layers.clear();
    const auto decoder = MakeDecoder(config, CpuDevice(), {.recompute = recompute, .experts = factory});
    EXPECT_THAT(layers, ElementsAre(1, 3));
    EXPECT_NE(decoder->Find("model.layers.3.mlp.shared_expert.up_proj.weight"), nullptr);
    EXPECT_NE(decoder->Find("model.layers.2.mlp.up_proj.weight"), nullptr);

    const TokenBatch batch = RandomBatch(CpuDevice(), {5, 3}, 19, 1);
    const auto sums = decoder->ForwardBackward(batch, {.tokens = 6, .sequences = 2});
    ASSERT_TRUE(sums.ok()) << sums.status();
    EXPECT_EQ(sums->aux_loss, 0.5);  // counted once, recomputed or not
    EXPECT_THAT(sums->expert_load, ElementsAre(std::vector<int64_t>(4, 8), std::vector<int64_t>(4, 8)));
    EXPECT_GT(Norm(ToHost(decoder->Find("model.layers.3.mlp.shared_expert.up_proj.weight")->grad)), 0);

    decoder->UpdateBalance({{1, 2, 3, 4}, {5, 6, 7, 8}});
    EXPECT_THAT(made[1]->load_, ElementsAre(5, 6, 7, 8));
    made[1]->fail_ = true;
    EXPECT_EQ(decoder->ForwardBackward(batch, {}).status().code(), absl::StatusCode::kUnavailable);
  }
}

}  // namespace
}  // namespace cohort::runtime
