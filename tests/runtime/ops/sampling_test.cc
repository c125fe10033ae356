// Tokens drawn on every device against those of the host's sampler, which serving draws with, and the reference.
#include <algorithm>
#include <cmath>
#include <limits>

#include "runtime/ops/cpu/row_sampler.h"
#include "tests/runtime/ops/compare.h"

namespace cohort::runtime {
namespace {

using Row = std::vector<float>;
constexpr float kInf = std::numeric_limits<float>::infinity();

SamplingRows RowsOn(Device& device, const std::vector<RowSampling>& rows) {
  std::vector<double> temperatures, top_p, min_p;
  std::vector<int32_t> top_k, draws(rows.size() * kDrawWords);
  for (size_t r = 0; r < rows.size(); ++r) {
    temperatures.push_back(rows[r].temperature);
    top_p.push_back(rows[r].top_p);
    min_p.push_back(rows[r].min_p);
    top_k.push_back(rows[r].top_k);
    PutDraw(rows[r], draws.data() + r * kDrawWords);
  }
  const auto count = static_cast<int64_t>(rows.size());
  const auto state = [&](const std::vector<double>& values) {
    return Tensor::FromHost(device, {count}, device.state_dtype(), values);
  };
  return {.temperatures = state(temperatures),
          .top_k = Tensor::FromHost(device, {count}, top_k),
          .top_p = state(top_p),
          .min_p = state(min_p),
          .draws = Tensor::FromHost(device, {count, kDrawWords}, draws)};
}

struct Drawn {
  std::vector<double> tokens, logprobs, ranks;
};

Drawn DrawOn(Device& device, const Tensor& logits, const std::vector<RowSampling>& rows, bool scores = true) {
  const int64_t count = logits.dim(0);
  const auto ints = [&] { return Tensor::FromHost(device, {count}, std::vector<int32_t>(count, 77)); };
  const Tensor tokens = ints(), ranks = scores ? ints() : Tensor();
  const Tensor logprobs = scores ? Tensor::Empty(device, {count}, device.state_dtype()) : Tensor();
  device.ops().SampleTokens(logits, RowsOn(device, rows), tokens, logprobs, ranks);
  if (!scores) return {ToHost(tokens), {}, {}};
  return {ToHost(tokens), ToHost(logprobs), ToHost(ranks)};
}

std::vector<double> HostTokens(const Tensor& logits, const std::vector<RowSampling>& rows) {
  const std::vector<double> values = ToHost(logits);
  const Row x(values.begin(), values.end());
  const auto v = static_cast<size_t>(logits.dim(1));
  RowSampler sampler;
  std::vector<double> tokens;
  for (size_t r = 0; r < rows.size(); ++r) {
    tokens.push_back(sampler.Sample(absl::MakeConstSpan(x).subspan(r * v, v), rows[r]));
  }
  return tokens;
}

class OpsSamplingTest : public OpsTest {
 protected:
  Tensor LogitsOf(const std::vector<Row>& rows) const {
    Row all;
    for (const Row& row : rows) all.insert(all.end(), row.begin(), row.end());
    return Tensor::FromHost(tested_device(),
                            {static_cast<int64_t>(rows.size()), static_cast<int64_t>(rows[0].size())}, all);
  }
  // Every row of a batch with parameters of its own.
  std::vector<RowSampling> MixedRows(int64_t count, int64_t v) {
    const float temperatures[] = {0, 1, 0.3f, 2.5f, 0.02f}, top_p[] = {1, 0.9f, 0.5f, 0.05f},
                min_p[] = {0, 0.1f, 0};
    const int32_t top_k[] = {0, 1, 5, 40, static_cast<int32_t>(v)};
    std::vector<RowSampling> rows(count);
    const auto pick = [&](const auto& list) { return list[generator_() % std::size(list)]; };
    for (RowSampling& row : rows) {
      row = {pick(temperatures), pick(top_k),        pick(top_p),      pick(min_p),
             generator_(),       generator_() >> 20, generator_() % 64};
    }
    return rows;
  }
  void ExpectHostTokens(const Tensor& logits, const std::vector<RowSampling>& rows) {
    EXPECT_EQ(DrawOn(tested_device(), logits, rows).tokens, HostTokens(logits, rows)) << logits.DebugString();
  }
};

TEST_P(OpsSamplingTest, TokensAreTheHostSamplersAndTheReferences) {
  for (DataType dtype : kComputeTypes) {
    for (int64_t v : {1, 2, 37, 700}) {
      for (int threads : thread_counts()) {
        SetCpuThreads(threads);
        const int64_t count = emulated() ? 12 : 60;
        const Twin logits = Random({count, v}, dtype, 3);
        const std::vector<RowSampling> rows = MixedRows(count, v);
        const Drawn got = DrawOn(tested_device(), logits.tested, rows);
        EXPECT_EQ(got.tokens, HostTokens(logits.tested, rows)) << v;
        EXPECT_EQ(got.tokens, DrawOn(tested_device(), logits.tested, rows, false).tokens) << v;
        const Drawn want = DrawOn(ReferenceDevice(), logits.reference, rows);
        EXPECT_EQ(got.tokens, want.tokens) << v;
        EXPECT_EQ(got.ranks, want.ranks) << v;
        for (int64_t r = 0; r < count; ++r) EXPECT_NEAR(got.logprobs[r], want.logprobs[r], 1e-5) << v;
      }
    }
  }
}

// Each filter must end between equals by their index, and both zeros are equal.
TEST_P(OpsSamplingTest, TiesGoToTheLowerIndex) {
  std::vector<Row> rows;
  std::vector<RowSampling> how;
  const Row few = {1, 2, 2, -0.0f, 0, 2, -3, 2, 0, -0.0f, 1, 1, -3};
  for (uint64_t i = 0; i < 60; i += emulated() ? 2 : 1) {
    rows.push_back(i % 3 == 0 ? Row(few.size(), 0.5f) : few);
    how.push_back({.temperature = i % 10 == 0 ? 0.0f : 3.0f,
                   .top_k = static_cast<int32_t>(i % 14),
                   .top_p = i % 4 == 0 ? 1 : static_cast<float>(i) / 60,
                   .min_p = i % 5 == 0 ? 0.4f : 0,
                   .seed = 9,
                   .position = i,
                   .stream = i / 2});
  }
  ExpectHostTokens(LogitsOf(rows), how);
  const Drawn greedy = DrawOn(tested_device(), LogitsOf({few}), {{.temperature = 0}});
  EXPECT_EQ(greedy.tokens, std::vector<double>({1}));
  EXPECT_EQ(greedy.ranks, std::vector<double>({1}));
}

TEST_P(OpsSamplingTest, MinusInfinityIsNeverDrawnAndWhatIsBrokenIsSaid) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<Row> rows = {
      {-kInf, -kInf, 4, -kInf}, {-kInf, 1, 1, -kInf},           {-kInf, -kInf, -kInf, -kInf}, {0, nan, 0, 0},
      {0, 1, 2, kInf},          {-1e30f, -kInf, -2e30f, -kInf}, {3e38f, -3e38f, 0, 1}};
  for (const RowSampling& row : {RowSampling{.temperature = 0}, RowSampling{.temperature = 1},
                                 RowSampling{.temperature = 1, .top_k = 3, .top_p = 0.99f, .min_p = 0.01f}}) {
    for (uint64_t seed = 0; seed < 5; ++seed) {
      std::vector<RowSampling> how(rows.size(), row);
      for (RowSampling& one : how) one.seed = seed;
      const Tensor logits = LogitsOf(rows);
      ExpectHostTokens(logits, how);
      const Drawn got = DrawOn(tested_device(), logits, how);
      EXPECT_EQ(got.tokens[0], 2);
      EXPECT_EQ(got.tokens[2], kNothingToDraw);
      EXPECT_EQ(got.tokens[3], kBrokenLogits);
      EXPECT_EQ(got.tokens[4], kBrokenLogits);
      EXPECT_EQ(got.ranks[3], 0);
    }
  }
}

// Filters off, on and nested must follow the distribution: shares of many draws of one row.
TEST_P(OpsSamplingTest, SharesFollowTheWeights) {
  const Row x = {std::log(1.0f), std::log(4.0f), std::log(3.0f), std::log(2.0f)};
  const int draws = emulated() ? 150 : 4000;
  for (int32_t top_k : {0, 2}) {
    std::vector<RowSampling> how(draws, {.temperature = 1, .top_k = top_k, .seed = 3});
    for (int i = 0; i < draws; ++i) how[i].position = i;
    const Drawn got = DrawOn(tested_device(), LogitsOf(std::vector<Row>(draws, x)), how);
    const double shares[2][4] = {{0.1, 0.4, 0.3, 0.2}, {0, 4 / 7.0, 3 / 7.0, 0}};
    for (int token = 0; token < 4; ++token) {
      const auto count = std::count(got.tokens.begin(), got.tokens.end(), token);
      EXPECT_NEAR(static_cast<double>(count) / draws, shares[top_k / 2][token], 2.5 / std::sqrt(draws))
          << token;
    }
  }
}

// More than a block's stretch of a row, and a row without any.
TEST_P(OpsSamplingTest, LongAndEmptyRows) {
  const int64_t v = 20011;
  const Twin logits = Random({3, v}, DataType::kF32, 2);
  std::vector<RowSampling> how = {{.temperature = 1.5f, .seed = 1},
                                  {.temperature = 1, .top_k = 300, .top_p = 0.95f, .seed = 2},
                                  {.temperature = 4, .top_p = 0.99f, .min_p = 0.001f, .seed = 3}};
  ExpectHostTokens(logits.tested, how);
  const Tensor empty = Tensor::Empty(tested_device(), {3, 0}, DataType::kF32);
  EXPECT_EQ(DrawOn(tested_device(), empty, how).tokens, std::vector<double>(3, kNothingToDraw));
  EXPECT_TRUE(
      DrawOn(tested_device(), Tensor::Empty(tested_device(), {0, 5}, DataType::kF32), {}).tokens.empty());
}

COHORT_ON_EVERY_DEVICE(OpsSamplingTest);

}  // namespace
}  // namespace cohort::runtime
