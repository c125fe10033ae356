// Whole models on the CPU against the reference in f64, and against themselves in other arrangements.
#include <gtest/gtest.h>

#include "tests/support/tiny_model.h"

namespace cohort::runtime {
namespace {

const std::vector<int> kLengths = {17, 1, 33, 8};

ModelConfig Config(const std::string& model_type, bool tied) {
  ModelConfig config = SmallConfig(model_type);
  config.tie_word_embeddings = tied;
  return config;
}

LossSums Step(Decoder& decoder, const TokenBatch& batch, const LossScale& scale) {
  auto sums = decoder.ForwardBackward(batch, scale);
  EXPECT_TRUE(sums.ok()) << sums.status();
  return *sums;
}

struct Case {
  const char* name;
  const char* model_type;
  bool tied;
  DataType compute;
  double loss_bound, gradient_bound, logit_bound;
};

class CpuModelTest : public testing::TestWithParam<Case> {};

TEST_P(CpuModelTest, LossLogitsAndEveryGradientMatchTheReference) {
  const Case& c = GetParam();
  const ModelConfig config = Config(c.model_type, c.tied);
  const auto cpu = MakeDecoder(config, CpuDevice(), {.compute = c.compute});
  const auto reference = MakeDecoder(config, ReferenceDevice(), {.compute = DataType::kF64});
  CopyWeights(*cpu, *reference);
  const TokenBatch cpu_batch = RandomBatch(CpuDevice(), kLengths, config.vocab_size, 3);
  const TokenBatch reference_batch = RandomBatch(ReferenceDevice(), kLengths, config.vocab_size, 3);
  const LossScale scale = {.tokens = 55, .sequences = 4};

  const LossSums got = Step(*cpu, cpu_batch, scale), wanted = Step(*reference, reference_batch, scale);
  EXPECT_EQ(got.tokens, 55);
  EXPECT_EQ(wanted.tokens, 55);
  EXPECT_NEAR(got.loss, wanted.loss, c.loss_bound * wanted.loss);
  for (Parameter* parameter : AllParameters(*cpu)) {
    EXPECT_LT(RelativeError(ToHost(parameter->grad), ToHost(reference->Find(parameter->name)->grad)),
              c.gradient_bound)
        << parameter->name;
  }
  const auto logits = cpu->Logits(cpu_batch), expected = reference->Logits(reference_batch);
  ASSERT_TRUE(logits.ok() && expected.ok());
  EXPECT_EQ(logits->dtype(), DataType::kF32);
  EXPECT_LT(RelativeError(ToHost(*logits), ToHost(*expected)), c.logit_bound);
}

INSTANTIATE_TEST_SUITE_P(
    Families, CpuModelTest,
    testing::Values(Case{"llama_f32", "llama", false, DataType::kF32, 1e-5, 1e-4, 1e-5},
                    Case{"qwen3_tied_f32", "qwen3", true, DataType::kF32, 1e-5, 1e-4, 1e-5},
                    Case{"llama_tied_bf16", "llama", true, DataType::kBF16, 5e-3, 5e-2, 3e-2},
                    Case{"qwen3_bf16", "qwen3", false, DataType::kBF16, 5e-3, 5e-2, 3e-2}),
    [](const auto& info) { return std::string(info.param.name); });

class ArrangementTest : public testing::TestWithParam<DataType> {};

TEST_P(ArrangementTest, RecomputationGivesTheSameBits) {
  const ModelConfig config = Config("qwen3", true);
  const auto kept = MakeDecoder(config, CpuDevice(), {.compute = GetParam()});
  const auto recomputed = MakeDecoder(config, CpuDevice(), {.compute = GetParam(), .recompute = true});
  const TokenBatch batch = RandomBatch(CpuDevice(), kLengths, config.vocab_size, 4);
  EXPECT_EQ(Step(*kept, batch, {.tokens = 55}).loss, Step(*recomputed, batch, {.tokens = 55}).loss);
  for (Parameter* parameter : AllParameters(*kept)) {
    EXPECT_EQ(ToHost(parameter->grad), ToHost(recomputed->Find(parameter->name)->grad)) << parameter->name;
  }
}

INSTANTIATE_TEST_SUITE_P(Types, ArrangementTest, testing::Values(DataType::kF32, DataType::kBF16),
                         [](const auto& info) { return std::string(Name(info.param)); });

TEST(ArrangementTest, RecomputationKeepsLess) {
  ModelConfig config = Config("llama", false);
  config.num_hidden_layers = 6;
  const TokenBatch batch = RandomBatch(CpuDevice(), {60, 60, 60, 60}, config.vocab_size, 4);
  const auto peak = [&](bool recompute) {
    const auto decoder = MakeDecoder(config, CpuDevice(), {.recompute = recompute});
    const size_t before = CpuDevice().allocated_bytes();
    CpuDevice().ResetPeak();
    Step(*decoder, batch, {.tokens = 236});
    return CpuDevice().peak_bytes() - before;
  };
  EXPECT_LT(peak(true), peak(false) / 2);
}

// Micro-batches add up to the batch that has all their sequences: sequences do not see each other, and the
// scale is the global batch's.
TEST(ArrangementTest, MicroBatchesAddUpToThePackedBatch) {
  const ModelConfig config = Config("qwen3", false);
  const auto whole = MakeDecoder(config, CpuDevice(), {});
  const auto parts = MakeDecoder(config, CpuDevice(), {});
  const auto sequences = RandomSequences(kLengths, config.vocab_size, 5);
  const LossScale scale = {.tokens = 55, .sequences = 4};
  const LossSums wanted = Step(*whole, PackBatch(CpuDevice(), sequences), scale);
  LossSums got;
  for (const auto& sequence : sequences) {
    const LossSums part = Step(*parts, PackBatch(CpuDevice(), {sequence}), scale);
    got.loss += part.loss;
    got.tokens += part.tokens;
  }
  EXPECT_EQ(got.tokens, wanted.tokens);
  EXPECT_NEAR(got.loss, wanted.loss, 1e-5 * wanted.loss);
  for (Parameter* parameter : AllParameters(*whole)) {
    EXPECT_LT(RelativeError(ToHost(parts->Find(parameter->name)->grad), ToHost(parameter->grad)), 1e-5)
        << parameter->name;
  }

  const auto packed = whole->Logits(PackBatch(CpuDevice(), sequences));
  ASSERT_TRUE(packed.ok());
  int64_t row = 0;
  for (const auto& sequence : sequences) {
    const auto alone = whole->Logits(PackBatch(CpuDevice(), {sequence}));
    ASSERT_TRUE(alone.ok());
    const auto length = static_cast<int64_t>(sequence.size());
    EXPECT_LT(RelativeError(ToHost(*alone), ToHost(packed->Slice(row, row + length))), 1e-5);
    row += length;
  }
}

TEST(ArrangementTest, ABatchOfNoTokensIsNoWork) {
  const ModelConfig config = Config("llama", true);
  const auto decoder = MakeDecoder(config, CpuDevice(), {});
  const LossSums sums = Step(*decoder, PackBatch(CpuDevice(), {}), {.tokens = 55});
  EXPECT_EQ(sums.tokens, 0);
  EXPECT_EQ(sums.loss, 0);
  for (Parameter* parameter : AllParameters(*decoder)) EXPECT_EQ(Norm(ToHost(parameter->grad)), 0);
}

// Gradient steps lower the loss: signs, scales and the update's view of the weights agree.
TEST(ArrangementTest, DescentOverfitsABatch) {
  for (const DataType compute : {DataType::kF32, DataType::kBF16}) {
    const ModelConfig config = Config("qwen3", true);
    const auto decoder = MakeDecoder(config, CpuDevice(), {.compute = compute});
    const TokenBatch batch = RandomBatch(CpuDevice(), {16, 16}, config.vocab_size, 6);
    double first = 0, last = 0;
    for (int step = 0; step < 40; ++step) {
      ZeroGrad(*decoder);
      last = Step(*decoder, batch, {.tokens = 30}).loss / 30;
      if (step == 0) first = last;
      for (ParameterGroup& group : decoder->groups()) {
        for (ParameterBucket& bucket : group.buckets()) {
          CpuDevice().ops().Accumulate(bucket.grad, -0.3, bucket.master);
          if (compute == DataType::kBF16) CpuDevice().ops().Copy(bucket.master, bucket.value);
        }
      }
    }
    EXPECT_GT(first, 3) << Name(compute);
    EXPECT_LT(last, 0.5 * first) << Name(compute);
  }
}

}  // namespace
}  // namespace cohort::runtime
