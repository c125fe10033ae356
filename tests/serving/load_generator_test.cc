#include "serving/load_generator.h"

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "serving/server.h"
#include "tests/serving/fake_runner.h"

namespace cohort::serving {
namespace {

absl::Duration Ms(double ms) { return absl::Milliseconds(ms); }

RequestRecord Record(double sent, std::vector<std::pair<double, int>> chunks, double ended) {
  RequestRecord record;
  record.sent = Ms(sent);
  for (auto [at, tokens] : chunks) record.chunks.emplace_back(Ms(at), tokens);
  record.ended = Ms(ended);
  record.prompt_tokens = 10;
  return record;
}

TEST(LoadGeneratorTest, Percentiles) {
  std::vector<double> samples;
  for (int i = 100; i >= 0; --i) samples.push_back(i);
  const Distribution distribution = DistributionOf(samples);
  EXPECT_DOUBLE_EQ(distribution.mean, 50);
  EXPECT_DOUBLE_EQ(distribution.median, 50);
  EXPECT_DOUBLE_EQ(distribution.p90, 90);
  EXPECT_DOUBLE_EQ(distribution.p99, 99);
  EXPECT_DOUBLE_EQ(DistributionOf({1, 2}).median, 1.5);
  EXPECT_DOUBLE_EQ(DistributionOf({}).p99, 0);
}

TEST(LoadGeneratorTest, SummaryOfKnownRecords) {
  std::vector<RequestRecord> records = {
      Record(0, {{100, 1}, {120, 1}, {160, 2}}, 160),  // TTFT 100, TPOT 60 / 3 = 20
      Record(50, {{350, 1}, {1000, 1}}, 1000),         // TTFT 300, TPOT 650
  };
  RequestRecord failed;
  failed.status = absl::ResourceExhaustedError("full");
  failed.sent = Ms(60);
  failed.ended = Ms(61);
  records.push_back(failed);
  GoodputLimits limits;
  limits.ttft = Ms(200);
  const LoadReport report = Summarize(records, limits);
  EXPECT_EQ(report.completed, 2);
  EXPECT_EQ(report.failed, 1);
  EXPECT_DOUBLE_EQ(report.duration_s, 1);
  EXPECT_DOUBLE_EQ(report.request_throughput, 2);
  EXPECT_DOUBLE_EQ(report.output_throughput, 6);
  EXPECT_DOUBLE_EQ(report.total_throughput, 26);
  EXPECT_DOUBLE_EQ(report.goodput, 1);
  EXPECT_DOUBLE_EQ(report.ttft_ms.mean, 200);
  EXPECT_DOUBLE_EQ(report.tpot_ms.mean, 335);
  EXPECT_DOUBLE_EQ(report.itl_ms.median, 40);  // 20, 40, 650
  EXPECT_DOUBLE_EQ(report.e2e_ms.mean, 555);
  EXPECT_EQ(report.first_error, "RESOURCE_EXHAUSTED: full");
}

struct LoadOnServerTest : ::testing::Test {
  void SetUp() override {
    const RunnerInfo info{1, 256, 16, kByteVocabulary, 512};
    engine = *Engine::Create(std::make_unique<FakeRunner>(info), ByteTokenizer(), {}, metrics);
    v1::GetModelInfoResponse described;
    described.set_vocabulary_size(kByteVocabulary);
    server = *Server::Start({"127.0.0.1:0", "", ""}, *engine, ByteTokenizer(), described);
    options.address = absl::StrCat("127.0.0.1:", server->port());
    options.requests = 20;
    options.output_tokens = 7;
    options.prompt_tokens = 12;
  }
  void Check(const absl::StatusOr<LoadReport>& report) {
    ASSERT_TRUE(report.ok()) << report.status();
    EXPECT_EQ(report->completed, 20) << report->first_error;
    EXPECT_NEAR(report->output_throughput * report->duration_s, 20 * 7, 1e-6);
    EXPECT_GT(report->ttft_ms.median, 0);
    EXPECT_GE(report->e2e_ms.median, report->ttft_ms.median);
  }
  Metrics metrics{"fake"};
  std::unique_ptr<Engine> engine;
  std::unique_ptr<Server> server;
  LoadOptions options;
};

TEST_F(LoadOnServerTest, ClosedLoop) { Check(RunLoad(options)); }

TEST_F(LoadOnServerTest, PoissonArrivals) {
  options.rate = 200;
  Check(RunLoad(options));
}

TEST_F(LoadOnServerTest, GivenPrompts) {
  options.prompts = {{1, 2, 3}, {4}};
  const auto report = RunLoad(options);
  Check(report);
  EXPECT_NEAR(report->total_throughput * report->duration_s, 20 * 7 + 10 * 4, 1e-6);
}

TEST_F(LoadOnServerTest, BadOptions) {
  options.requests = 0;
  EXPECT_EQ(RunLoad(options).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace cohort::serving
