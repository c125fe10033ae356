// A batch in halves: where it is cut, and that nothing of what is computed depends on it.
#include "parallel/tensor/split_batch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "moe/moe_layer.h"
#include "tests/support/tiny_model.h"

namespace cohort::parallel {
namespace {

using runtime::TokenBatch;
using ::testing::ElementsAre;

constexpr SplitRule kRule = {.tile = 32, .least = 64};

TEST(CutOf, TheMultipleOfATileThatIsNearestToTheMiddle) {
  EXPECT_EQ(CutOf({0, 256}, kRule), 128);
  EXPECT_EQ(CutOf({0, 100, 290}, kRule), 160);  // 145 is nearer to 160 than to 128
  EXPECT_EQ(CutOf({0, 100, 270}, kRule), 128);
  EXPECT_EQ(CutOf({0, 300}, {.tile = 128, .least = 64}), 128);
}

TEST(CutOf, BatchesOfFewTokensStayWhole) {
  EXPECT_EQ(CutOf({}, kRule), 0);
  EXPECT_EQ(CutOf({0}, kRule), 0);
  EXPECT_EQ(CutOf({0, 127}, kRule), 0);  // 64 and 63
  EXPECT_EQ(CutOf({0, 128}, kRule), 64);
  EXPECT_EQ(CutOf({0, 1}, {.tile = 1, .least = 0}), 0);
  EXPECT_EQ(CutOf({0, 2}, {.tile = 1, .least = 0}), 1);
}

TEST(CutOf, HalvesHaveNoMoreTilesThanTheWhole) {
  const auto tiles = [](int64_t rows, int64_t tile) { return (rows + tile - 1) / tile; };
  for (const int64_t tile : {1, 16, 32, 100}) {
    for (int32_t total = 0; total < 1000; ++total) {
      const int64_t cut = CutOf({0, total}, {.tile = tile, .least = 64});
      ASSERT_GE(cut, 0);
      if (cut == 0) {
        ASSERT_LT(total, 2 * (64 + tile)) << "a batch that is large enough stays whole";
        continue;
      }
      ASSERT_EQ(tiles(cut, tile) + tiles(total - cut, tile), tiles(total, tile)) << total;
      ASSERT_LE(std::abs(2 * cut - total), tile) << total;
      ASSERT_GE(std::min(cut, total - cut), 64) << total;
    }
  }
}

TEST(CutOf, BetweenWholeSequencesTheBoundaryNearestToTheMiddle) {
  SplitRule rule = kRule;
  rule.whole_sequences = true;
  EXPECT_EQ(CutOf({0, 100, 190, 400}, rule), 190);
  EXPECT_EQ(CutOf({0, 400}, rule), 0);
  EXPECT_EQ(CutOf({0, 90, 400}, rule), 0) << "less than a quarter";
  EXPECT_EQ(CutOf({0, 60, 120}, rule), 0) << "60 tokens are too few";
}

TEST(Halves, AreTheWholeOneAfterTheOther) {
  const TokenBatch whole = runtime::RandomBatch(runtime::CpuDevice(), {3, 0, 5, 0, 2}, 19, 1);
  for (int64_t cut = 1; cut < whole.num_tokens(); ++cut) {
    const std::vector<TokenBatch> halves = Halves(whole, cut);
    ASSERT_EQ(halves.size(), 2u);
    std::vector<double> tokens = ToHost(halves[0].tokens), second = ToHost(halves[1].tokens);
    tokens.insert(tokens.end(), second.begin(), second.end());
    EXPECT_EQ(tokens, ToHost(whole.tokens));
    EXPECT_EQ(halves[0].attention != nullptr, cut != 3 && cut != 8) << "where a sequence is cut";
    EXPECT_EQ(halves[0].attention != nullptr, halves[1].attention != nullptr);
  }
  EXPECT_THAT(Halves(whole, 3)[0].host_offsets, ElementsAre(0, 3, 3));
  EXPECT_THAT(Halves(whole, 3)[1].host_offsets, ElementsAre(0, 5, 5, 7));
  EXPECT_THAT(Halves(whole, 6)[0].host_offsets, ElementsAre(0, 3, 3, 6));
  EXPECT_THAT(Halves(whole, 6)[1].host_offsets, ElementsAre(0, 2, 2, 4));
  EXPECT_THAT(Halves(whole, 9)[1].host_offsets, ElementsAre(0, 1));
}

struct Computed {
  double loss, aux_loss;
  std::vector<std::vector<double>> gradients;
};

Computed Compute(runtime::Decoder& decoder, const TokenBatch& batch) {
  runtime::ZeroGrad(decoder);
  const auto sums = decoder.ForwardBackward(batch, {.tokens = 7, .sequences = 3});
  EXPECT_TRUE(sums.ok()) << sums.status();
  Computed computed = {.loss = sums->loss, .aux_loss = sums->aux_loss, .gradients = {}};
  for (const runtime::Parameter* parameter : runtime::AllParameters(decoder)) {
    computed.gradients.push_back(parameter->buffer ? std::vector<double>() : ToHost(parameter->grad));
  }
  return computed;
}

// In double precision, so that the order of sums does not matter.
TEST(SplitBatch, EveryCutComputesTheGradientsOfTheWholeBatch) {
  runtime::Device& device = runtime::ReferenceDevice();
  const TokenBatch whole = runtime::RandomBatch(device, {4, 1, 5}, 19, 3);
  for (const char* family : {"llama", "qwen3_moe"}) {
    for (const bool recompute : {false, true}) {
      const auto decoder =
          runtime::MakeDecoder(runtime::TinyConfig(family), device,
                               {.compute = DataType::kF64,
                                .recompute = recompute,
                                .experts = moe::MakeMoeFactory(std::make_shared<moe::ExpertGroup>())});
      const Computed want = Compute(*decoder, whole);
      const auto evaluated = decoder->Evaluate(whole);
      ASSERT_TRUE(evaluated.ok()) << evaluated.status();
      for (int64_t cut = 1; cut < whole.num_tokens(); ++cut) {
        const std::string what = absl::StrCat(family, " cut at ", cut);
        TokenBatch batch = whole;
        batch.halves = Halves(whole, cut);
        const Computed got = Compute(*decoder, batch);
        EXPECT_NEAR(got.loss, want.loss, 1e-12 * want.loss) << what;
        EXPECT_NEAR(got.aux_loss, want.aux_loss, 1e-12) << what;
        for (size_t p = 0; p < want.gradients.size(); ++p) {
          EXPECT_LT(runtime::RelativeError(got.gradients[p], want.gradients[p]), 1e-11) << what << ", " << p;
        }
        EXPECT_NEAR(decoder->Evaluate(batch)->loss, evaluated->loss, 1e-12 * want.loss) << what;
      }
    }
  }
}

}  // namespace
}  // namespace cohort::parallel
