#include "serving/distributed_runner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include "absl/time/clock.h"
#include "runtime/collectives/over_device.h"
#include "serving/decoder_runner.h"
#include "serving/engine.h"
#include "serving/step_codec.h"
#include "tests/runtime/device/fake_links.h"
#include "tests/runtime/device/far_device.h"
#include "tests/serving/collecting_sink.h"
#include "tests/serving/fake_runner.h"
#include "tests/serving/small_decoder.h"
#include "tests/support/ranks.h"
#include "tests/support/temp_folder.h"

namespace cohort::serving {
namespace {

using comm::Communicator;
using ::testing::HasSubstr;

EngineOptions Options() {
  EngineOptions options;
  options.max_sequences = 2;
  options.max_tokens_per_step = 6;
  options.check_every_step = true;
  options.heartbeat = absl::Milliseconds(50);
  return options;
}

std::unique_ptr<Engine> Lead(Communicator& communicator, RunnerInfo info, RankFunction run,
                             Metrics& metrics) {
  auto engine = Engine::Create(std::make_unique<DistributedRunner>(communicator, info, std::move(run)),
                               ByteTokenizer(), Options(), metrics);
  EXPECT_TRUE(engine.ok()) << engine.status();
  return *std::move(engine);
}

std::vector<std::shared_ptr<CollectingSink>> SubmitAll(Engine& engine,
                                                       const std::vector<GenerationRequest>& requests) {
  std::vector<std::shared_ptr<CollectingSink>> sinks;
  for (const GenerationRequest& request : requests) {
    sinks.push_back(std::make_shared<CollectingSink>());
    EXPECT_TRUE(engine.Submit(request, sinks.back()).ok());
  }
  return sinks;
}

// Sequences and, where the family has them, its four experts on several ranks: every request gets what a single process
// with all experts gives it on the CPU, before and after a pause that is longer than the communicator waits.
// prepare: what a rank needs for as long as it serves.
void CheckRanks(int ranks, const char* family, runtime::Device& (*device)(),
                const std::function<std::shared_ptr<void>()>& prepare = nullptr) {
  testing::RunRanks(ranks,
                    [&](Communicator& communicator) {
                      const std::shared_ptr<void> kept = prepare ? prepare() : nullptr;
                      auto shared = std::shared_ptr<Communicator>(&communicator, [](Communicator*) {});
                      auto over_device = runtime::OverDevice(device(), shared);
                      ASSERT_TRUE(over_device.ok()) << over_device.status();
                      const auto decoder = SmallDecoder(
                          family, moe::ExpertGroup(shared, /*apart=*/false, *over_device), device());
                      ASSERT_NE(decoder, nullptr);
                      CacheOptions cache;
                      cache.page_size = 4;
                      auto local = DecoderRunner::Create(*decoder, cache, Options().max_sequences);
                      ASSERT_TRUE(local.ok()) << local.status();
                      int rows = 0;
                      const RankFunction run = [&](const RankStep& step) {
                        rows += static_cast<int>(step.rows.size());
                        return (*local)->RunRank(step);
                      };
                      if (communicator.rank() != 0) {
                        EXPECT_EQ(RunFollower(communicator, run), absl::OkStatus());
                        EXPECT_GT(rows, 0) << "rank " << communicator.rank() << " has had no sequence";
                        return;
                      }
                      Metrics metrics("small");
                      const auto engine = Lead(communicator, (*local)->info(), run, metrics);
                      const auto alone = SmallDecoder(family);
                      const std::vector<GenerationRequest> requests = SmallRequests();
                      for (int round = 0; round < 2; ++round) {
                        const auto sinks = SubmitAll(*engine, requests);
                        for (size_t i = 0; i < requests.size(); ++i) {
                          ASSERT_EQ(sinks[i]->Wait(), absl::OkStatus());
                          EXPECT_EQ(sinks[i]->output().tokens, GreedyByLogits(*alone, requests[i])) << i;
                        }
                        if (round == 0) absl::SleepFor(absl::Milliseconds(2200));
                      }
                    },
                    {.timeout = absl::Seconds(2), .limit = absl::Seconds(60), .victims = {}});
}

TEST(DistributedRunnerTest, ExpertsOverTwoRanksChangeNothing) {
  CheckRanks(2, "qwen3_moe", runtime::CpuDevice);
}

TEST(DistributedRunnerTest, NorDoDevicesThatAreNotTheHostsMemory) {
  CheckRanks(2, "qwen3_moe", runtime::FarDevice);
  CheckRanks(4, "mixtral", runtime::FarDevice);
  CheckRanks(3, "llama", runtime::FarDevice);
}

TEST(DistributedRunnerTest, NorDoLinksOfDevices) {
  const TempFolder folder;
  testing::SharedCounter calls;
  CheckRanks(2, "qwen3_moe", runtime::FarDevice, runtime::FakeLinks(folder.Path(""), calls));
  EXPECT_GT(calls.Get(), 0) << "nothing went that way";
}

RunnerInfo FakeInfo() { return {1, 32, 4, kByteVocabulary, 120}; }

GenerationRequest LongRequest() {
  GenerationRequest request;
  request.prompt = {'a', 'b', 'c'};
  request.stopping.max_tokens = 100;
  request.stopping.ignore_eos = true;
  return request;
}

// A killed rank: everybody gets an answer that names it, and all survivors end, well before the test's limit.
TEST(DistributedRunnerTest, AKilledRankEndsTheServerWithAnswers) {
  testing::RunRanks(3,
                    [](Communicator& communicator) {
                      FakeRunner fake(FakeInfo());
                      int steps = 0;
                      const RankFunction run = [&](const RankStep& step) -> absl::StatusOr<RankResult> {
                        if (++steps == 10 && communicator.rank() == 2) kill(getpid(), SIGKILL);
                        absl::SleepFor(absl::Milliseconds(1));
                        return fake.RunRank(step, 0);
                      };
                      if (communicator.rank() != 0) {
                        EXPECT_FALSE(RunFollower(communicator, run).ok());
                        return;
                      }
                      Metrics metrics("fake");
                      const auto engine = Lead(communicator, FakeInfo(), run, metrics);
                      const auto sinks = SubmitAll(*engine, std::vector<GenerationRequest>(8, LongRequest()));
                      for (const auto& sink : sinks) {
                        const absl::Status status = sink->Wait();
                        EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
                        EXPECT_THAT(std::string(status.message()), HasSubstr("2"));
                      }
                      EXPECT_FALSE(engine->health().ok());
                    },
                    {.timeout = absl::Seconds(3), .limit = absl::Seconds(30), .victims = {2}});
}

TEST(DistributedRunnerTest, AFailingRankSaysWhy) {
  testing::RunRanks(2,
                    [](Communicator& communicator) {
                      FakeRunner fake(FakeInfo());
                      int steps = 0;
                      const RankFunction run = [&](const RankStep& step) -> absl::StatusOr<RankResult> {
                        if (++steps == 5 && communicator.rank() == 1)
                          return absl::InternalError("the device is on fire");
                        return fake.RunRank(step, 0);
                      };
                      if (communicator.rank() != 0) {
                        EXPECT_FALSE(RunFollower(communicator, run).ok());
                        return;
                      }
                      Metrics metrics("fake");
                      const auto engine = Lead(communicator, FakeInfo(), run, metrics);
                      const auto sinks = SubmitAll(*engine, {LongRequest()});
                      const absl::Status status = sinks[0]->Wait();
                      EXPECT_THAT(std::string(status.message()), HasSubstr("rank 1"));
                      EXPECT_THAT(std::string(status.message()), HasSubstr("on fire"));
                    },
                    {.timeout = absl::Seconds(3), .limit = absl::Seconds(30), .victims = {}});
}

TEST(StepCodecTest, RoundTrip) {
  RankStep step;
  step.tokens = {1, 2, 3};
  step.positions = {0, 1, 2};
  step.slots = {8, 9, 10};
  step.query_offsets = {0, 1, 3};
  step.context_lengths = {1, 2};
  step.page_table = {{4}, {}, {5, 6}};
  step.rows.resize(2);
  step.rows[0].target = 7;
  step.rows[1].params.temperature = 0.25f;
  step.rows[1].params.logit_bias = {{3, 1.5f}, {-1, 2.0f}};
  step.rows[1].prompt = {9, 9};
  step.rows[1].position = 1ull << 40;
  const std::string bytes = EncodeStep(step);
  const auto copy = DecodeStep(bytes);
  ASSERT_TRUE(copy.ok()) << copy.status();
  EXPECT_EQ(EncodeStep(*copy), bytes);
  EXPECT_EQ(copy->page_table, step.page_table);
  EXPECT_EQ(copy->rows[0].target, 7);
  EXPECT_EQ(copy->rows[1].params.logit_bias, step.rows[1].params.logit_bias);

  RankResult result;
  result.rows.resize(2);
  result.rows[0].scores = TokenScores{{1, -0.5f, 2}, {{3, -0.1f, 1}}};
  result.rows[1].error = "bad";
  const auto answer = DecodeAnswer(4, EncodeAnswer(result));
  ASSERT_TRUE(answer.ok());
  EXPECT_EQ(answer->rows[0].scores->top[0].token, 3);
  EXPECT_EQ(answer->rows[1].error, "bad");
  const auto failed = DecodeAnswer(4, EncodeAnswer(absl::StatusOr<RankResult>(absl::InternalError("why"))));
  EXPECT_THAT(std::string(failed.status().message()), HasSubstr("rank 4: INTERNAL: why"));
}

TEST(StepCodecTest, CorruptBytesAreErrors) {
  RankStep step;
  step.tokens = {1, 2, 3};
  step.rows.resize(1);
  std::string bytes = EncodeStep(step);
  for (size_t length = 0; length < bytes.size(); ++length)
    EXPECT_FALSE(DecodeStep(bytes.substr(0, length)).ok());
  EXPECT_FALSE(DecodeStep(bytes + "x").ok());
  for (size_t at = 0; at < bytes.size(); ++at) {
    std::string changed = bytes;
    changed[at] = '\xff';
    DecodeStep(changed).status().IgnoreError();  // no crash, no huge allocation
  }
}

}  // namespace
}  // namespace cohort::serving
