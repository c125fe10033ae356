// A real trained model gives the text that its authors publish, and the logits that a float64 run gave.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>

#include "runtime/checkpoint/hf_folder.h"
#include "tests/support/test_data.h"
#include "tests/support/tiny_model.h"

namespace cohort::runtime {
namespace {

class StoriesTest : public testing::Test {
 protected:
  void SetUp() override {
    COHORT_SKIP_WITHOUT_TEST_DATA();
    folder_ = TestData() + "/stories260k";
    std::ifstream file(folder_ + "/expected.json");
    if (!file) GTEST_SKIP() << folder_ << " has no expected.json";
    expected_ = nlohmann::json::parse(file);
    const auto config = ModelConfig::Load(folder_);
    ASSERT_TRUE(config.ok()) << config.status();
    auto decoder = Decoder::Create(*config, CpuDevice(), {.compute = DataType::kF32, .trainable = false});
    ASSERT_TRUE(decoder.ok()) << decoder.status();
    decoder_ = *std::move(decoder);
    const absl::Status loaded = LoadWeights(folder_, *decoder_);
    ASSERT_TRUE(loaded.ok()) << loaded;
  }

  std::string folder_;
  nlohmann::json expected_;
  std::unique_ptr<Decoder> decoder_;
};

TEST_F(StoriesTest, LogitsAfterBos) {
  const auto logits = decoder_->Logits(PackBatch(CpuDevice(), {{1}}));
  ASSERT_TRUE(logits.ok()) << logits.status();
  const std::vector<double> got = ToHost(*logits);
  const auto wanted = expected_["logits_after_bos_f64"].get<std::vector<double>>();
  ASSERT_EQ(got.size(), wanted.size());
  for (size_t i = 0; i < got.size(); ++i) EXPECT_NEAR(got[i], wanted[i], 1e-4) << "logit " << i;
}

TEST_F(StoriesTest, GreedyContinuation) {
  const auto wanted = expected_["greedy_ids"].get<std::vector<int32_t>>();
  const auto count = static_cast<int64_t>(wanted.size());
  constexpr int64_t kPageSize = 16;
  const int64_t pages = count / kPageSize + 1;
  KvCache cache = decoder_->MakeCache(pages, kPageSize);
  std::vector<int32_t> table;
  for (int64_t page = 0; page < pages; ++page) table.push_back(static_cast<int32_t>(page));
  const auto tensor = [](Shape shape, const std::vector<int32_t>& values) {
    return Tensor::FromHost(CpuDevice(), std::move(shape), absl::MakeConstSpan(values));
  };
  std::vector<int32_t> got;
  int32_t token = 1;
  for (int32_t position = 0; position < count; ++position) {
    const auto logits = decoder_->ForwardPaged({.tokens = tensor({1}, {token}),
                                                .positions = tensor({1}, {position}),
                                                .slots = tensor({1}, {position}),
                                                .query_offsets = tensor({2}, {0, 1}),
                                                .context_lengths = tensor({1}, {position + 1}),
                                                .page_table = tensor({1, pages}, table),
                                                .logit_rows = tensor({1}, {0})},
                                               cache);
    ASSERT_TRUE(logits.ok()) << logits.status();
    const std::vector<double> values = ToHost(*logits);
    token = static_cast<int32_t>(std::max_element(values.begin(), values.end()) - values.begin());
    got.push_back(token);
  }
  EXPECT_EQ(got, wanted);
}

}  // namespace
}  // namespace cohort::runtime
