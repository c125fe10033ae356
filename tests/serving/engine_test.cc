#include "serving/engine.h"

#include <gtest/gtest.h>

#include <random>

#include "absl/strings/str_cat.h"
#include "serving/sampler.h"
#include "tests/serving/collecting_sink.h"
#include "tests/serving/fake_runner.h"

namespace cohort::serving {
namespace {

using Sink = std::shared_ptr<CollectingSink>;

struct EngineTest : ::testing::Test {
  void Start(RunnerInfo info, EngineOptions options = {}, FakeModel model = HashModel) {
    options.check_every_step = true;
    auto engine = Engine::Create(std::make_unique<FakeRunner>(info, std::move(model), control),
                                 ByteTokenizer(), options, metrics);
    ASSERT_TRUE(engine.ok()) << engine.status();
    this->engine = *std::move(engine);
  }
  Sink Submit(GenerationRequest request, absl::StatusCode expected = absl::StatusCode::kOk) {
    auto sink = std::make_shared<CollectingSink>();
    const auto handle = engine->Submit(std::move(request), sink);
    EXPECT_EQ(handle.status().code(), expected) << handle.status();
    last_handle = handle.value_or(0);
    return sink;
  }

  std::shared_ptr<FakeControl> control = std::make_shared<FakeControl>();
  Metrics metrics{"fake"};
  std::unique_ptr<Engine> engine;
  uint64_t last_handle = 0;
};

RunnerInfo Info(int32_t pages = 64, int32_t page_size = 4, int32_t ranks = 1, int32_t context = 200) {
  return {ranks, pages, page_size, kByteVocabulary, context};
}

std::vector<int32_t> Bytes(const std::string& text) {
  std::vector<int32_t> ids;
  for (char c : text) ids.push_back(static_cast<uint8_t>(c));
  return ids;
}

GenerationRequest Request(const std::string& prompt, int max_tokens, uint64_t seed = 7) {
  GenerationRequest request;
  request.prompt = Bytes(prompt);
  request.sampling.seed = seed;
  request.stopping.max_tokens = max_tokens;
  return request;
}

TEST_F(EngineTest, GreedyIsTheModelItself) {
  Start(Info());
  GenerationRequest request = Request("The quick brown fox", 30);
  request.sampling.temperature = 0;
  const Sink sink = Submit(request);
  ASSERT_TRUE(sink->Wait().ok());
  EXPECT_EQ(sink->output().tokens, GenerateAlone(HashModel, request.prompt, 30, request.sampling));
  EXPECT_EQ(sink->usage().prompt_tokens, 19);
  EXPECT_EQ(sink->usage().completion_tokens, static_cast<int>(sink->output().tokens.size()));
  EXPECT_EQ(sink->prompt(), request.prompt);
}

// The load: many requests of all lengths, few pages (so that some are preempted), small steps (so that
// prompts are cut in chunks), shared beginnings, several ranks. Each must get what it gets alone.
void CheckUnderLoad(EngineTest& test, int ranks, int count, bool share) {
  EngineOptions options;
  options.max_tokens_per_step = 12;
  options.max_sequences = 6;
  options.share_prefixes = share;
  test.Start(Info(24, 4, ranks, 90), options);
  std::mt19937 random(3);
  std::vector<GenerationRequest> requests;
  std::vector<Sink> sinks;
  for (int i = 0; i < count; ++i) {
    std::string prompt = i % 3 == 0 ? "a common beginning of some length, " : "";
    prompt += absl::StrCat("request ", i, std::string(random() % 20, 'x'));
    GenerationRequest request = Request(prompt, 1 + static_cast<int>(random() % 40), i);
    request.n = 1 + static_cast<int>(random() % 3);
    request.sampling.temperature = i % 4 == 0 ? 0 : 0.9f;
    request.sampling.repetition_penalty = i % 5 == 0 ? 1.2f : 1;
    request.sampling.frequency_penalty = i % 5 == 1 ? 0.5f : 0;
    sinks.push_back(test.Submit(request));
    requests.push_back(request);
  }
  for (int i = 0; i < count; ++i) {
    ASSERT_TRUE(sinks[i]->Wait().ok()) << i;
    const int room =
        std::min(requests[i].stopping.max_tokens, 90 - static_cast<int>(requests[i].prompt.size()));
    for (int index = 0; index < requests[i].n; ++index) {
      ASSERT_EQ(sinks[i]->output(index).tokens,
                GenerateAlone(HashModel, requests[i].prompt, room, requests[i].sampling,
                              static_cast<uint64_t>(index)))
          << i << " " << index;
    }
  }
  const EngineGauges gauges = test.engine->gauges();
  EXPECT_EQ(gauges.running + gauges.waiting, 0);
  EXPECT_EQ(gauges.cache_usage, 0);
}

TEST_F(EngineTest, NobodyGetsOtherTokensUnderLoad) {
  CheckUnderLoad(*this, 1, 40, true);
  const std::string text = metrics.Text();
  EXPECT_EQ(text.find("cohort:num_preemptions_total{model_name=\"fake\",engine=\"0\"} 0\n"),
            std::string::npos)
      << "the load should preempt";
  EXPECT_EQ(text.find("cohort:prefix_cache_hits_total{model_name=\"fake\",engine=\"0\"} 0\n"),
            std::string::npos);
}
TEST_F(EngineTest, NobodyGetsOtherTokensOnThreeRanks) { CheckUnderLoad(*this, 3, 60, true); }
TEST_F(EngineTest, NobodyGetsOtherTokensWithoutSharing) { CheckUnderLoad(*this, 2, 40, false); }

TEST_F(EngineTest, SeedsDecideAndCompletionsDiffer) {
  Start(Info());
  GenerationRequest request = Request("once", 20, 11);
  request.n = 4;
  const Sink first = Submit(request), second = Submit(request);
  request.sampling.seed = 12;
  const Sink other = Submit(request);
  ASSERT_TRUE(first->Wait().ok() && second->Wait().ok() && other->Wait().ok());
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(first->output(i).tokens, second->output(i).tokens);
    EXPECT_NE(first->output(i).tokens, other->output(i).tokens);
    for (int j = 0; j < i; ++j) EXPECT_NE(first->output(i).tokens, first->output(j).tokens);
  }
}

TEST_F(EngineTest, CompletionsShareThePagesOfTheirPrompt) {
  control->Allow(0);
  Start(Info(64, 4), {}, Recite(std::string(100, 'y'), 40));
  GenerationRequest request = Request(std::string(40, 'p'), 8);
  request.n = 8;
  const Sink sink = Submit(request);
  control->Allow(4);
  ASSERT_TRUE(control->WaitForSteps(4));
  // 40 tokens are 10 pages; the first sequence holds them, and the other seven 9 of the
  // same and their own last.
  control->Allow(1);
  ASSERT_TRUE(control->WaitForSteps(5));
  EXPECT_LE(engine->gauges().cache_usage, (10.0 + 7 + 8) / 64);
  control->FreeRun();
  ASSERT_TRUE(sink->Wait().ok());
}

TEST_F(EngineTest, CancellationFreesPagesAtOnce) {
  control->Allow(3);
  Start(Info());
  const Sink sink = Submit(Request("to be cancelled", 100));
  GenerationRequest waiting = Request("goes on", 5);
  ASSERT_TRUE(control->WaitForSteps(3));
  engine->Cancel(last_handle);
  engine->Cancel(12345);  // nobody
  control->Allow(1);      // the step that was running
  EXPECT_EQ(sink->Wait().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(engine->gauges().cache_usage, 0);
  EXPECT_LE(control->steps(), 4);
  control->FreeRun();
  EXPECT_TRUE(Submit(waiting)->Wait().ok());
}

TEST_F(EngineTest, DeadlineEndsARequest) {
  control->Allow(2);
  Start(Info());
  GenerationRequest request = Request("late", 100);
  request.deadline = absl::Now() + absl::Milliseconds(60);
  const Sink sink = Submit(request);
  ASSERT_TRUE(control->WaitForSteps(2));
  absl::SleepFor(absl::Milliseconds(80));
  control->Allow(1);
  EXPECT_EQ(sink->Wait().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(engine->gauges().cache_usage, 0);
}

TEST_F(EngineTest, FullQueueTurnsAwayAndRecovers) {
  EngineOptions options;
  options.max_sequences = 1;
  options.max_queued_requests = 2;
  control->Allow(1);
  Start(Info(), options);
  std::vector<Sink> sinks = {Submit(Request("runs", 3))};
  ASSERT_TRUE(control->WaitForSteps(1));
  sinks.push_back(Submit(Request("waits", 3)));
  const uint64_t waiting = last_handle;
  sinks.push_back(Submit(Request("waits too", 3)));
  Submit(Request("too many", 3), absl::StatusCode::kResourceExhausted);
  EXPECT_NE(metrics.Text().find("reason=\"queue_full\"} 1"), std::string::npos);
  engine->Cancel(waiting);
  control->FreeRun();
  for (const Sink& sink : {sinks[0], sinks[2]}) EXPECT_TRUE(sink->Wait().ok());
  EXPECT_EQ(sinks[1]->Wait().code(), absl::StatusCode::kCancelled);
  EXPECT_TRUE(Submit(Request("room again", 3))->Wait().ok());
}

TEST_F(EngineTest, QueueIsBoundedByTokensToo) {
  EngineOptions options;
  options.max_sequences = 1;
  options.max_queued_tokens = 30;
  control->Allow(1);
  Start(Info(), options);
  const Sink running = Submit(Request("runs", 2));
  ASSERT_TRUE(control->WaitForSteps(1));
  const Sink waiting = Submit(Request(std::string(20, 'a'), 2));
  Submit(Request(std::string(20, 'b'), 2), absl::StatusCode::kResourceExhausted);
  control->FreeRun();
  EXPECT_TRUE(running->Wait().ok() && waiting->Wait().ok());
}

TEST_F(EngineTest, DrainFinishesWhatRuns) {
  Start(Info());
  const Sink sink = Submit(Request("runs to its end", 60));
  engine->Drain(absl::Now() + absl::Seconds(20));
  EXPECT_TRUE(sink->finished());
  EXPECT_NE(sink->output().reason, FinishReason::kAborted);
  Submit(Request("too late", 3), absl::StatusCode::kUnavailable);
}

TEST_F(EngineTest, DrainAbortsAfterItsGrace) {
  EngineOptions options;
  options.max_sequences = 1;
  control->Allow(5);
  Start(Info(), options, Recite(std::string(1000, 'z'), 4));
  const Sink runs = Submit(Request("runs", 150)), waits = Submit(Request("wait", 150));
  ASSERT_TRUE(control->WaitForSteps(5));
  std::thread release([&] {
    absl::SleepFor(absl::Milliseconds(50));
    control->Allow(1);
  });
  engine->Drain(absl::Now() + absl::Milliseconds(20));
  release.join();
  ASSERT_TRUE(runs->Wait().ok() && waits->Wait().ok());
  EXPECT_EQ(runs->output().reason, FinishReason::kAborted);
  EXPECT_GE(runs->output().tokens.size(), 5u);
  EXPECT_EQ(waits->output().reason, FinishReason::kAborted);
  EXPECT_TRUE(waits->output().tokens.empty());
}

TEST_F(EngineTest, LostRankAnswersEverybody) {
  control->FailAfter(3);
  control->Allow(0);  // until all are submitted
  EngineOptions options;
  options.max_sequences = 2;
  Start(Info(), options);
  std::vector<Sink> sinks;
  for (int i = 0; i < 5; ++i) sinks.push_back(Submit(Request("lost", 100)));
  control->FreeRun();
  for (const Sink& sink : sinks) {
    const absl::Status status = sink->Wait();
    EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
    EXPECT_NE(status.message().find("rank 1 was lost"), std::string::npos);
  }
  EXPECT_FALSE(engine->health().ok());
  Submit(Request("after", 3), absl::StatusCode::kUnavailable);
}

TEST_F(EngineTest, UnusableLogitsEndTheirRequestAlone) {
  Start(Info(), {}, [](absl::Span<const int32_t> history) {
    std::vector<float> logits = HashModel(history);
    if (history[0] == 'N' && history.size() > 6) logits[40] = std::nanf("");
    return logits;
  });
  GenerationRequest bad = Request("NaN", 50);
  bad.n = 3;
  const Sink broken = Submit(bad), fine = Submit(Request("fine", 20));
  EXPECT_EQ(broken->Wait().code(), absl::StatusCode::kInternal);
  EXPECT_TRUE(fine->Wait().ok());
  EXPECT_EQ(engine->gauges().cache_usage, 0);
}

TEST_F(EngineTest, ContextEndsACompletion) {
  Start(Info(64, 4, 1, 32), {}, Recite(std::string(1000, 'z'), 10));
  const Sink sink = Submit(Request("0123456789", 1000));
  ASSERT_TRUE(sink->Wait().ok());
  EXPECT_EQ(sink->output().reason, FinishReason::kLength);
  EXPECT_EQ(sink->output().tokens.size(), 22u);  // 32 in all
}

TEST_F(EngineTest, CacheSmallerThanTheContextEndsItToo) {
  Start(Info(5, 4), {}, Recite(std::string(1000, 'z'), 10));
  EXPECT_EQ(engine->capacity(), 20);
  GenerationRequest request = Request("0123456789", 1000);
  request.n = 3;  // none fits beside another to its end
  const Sink sink = Submit(request);
  ASSERT_TRUE(sink->Wait().ok());
  for (int i = 0; i < 3; ++i) EXPECT_EQ(sink->output(i).tokens.size(), 10u);
}

TEST_F(EngineTest, LogprobsAreTheModelsOwn) {
  Start(Info());
  GenerationRequest request = Request("log probabilities of a prompt", 6);
  request.logprobs = 3;
  request.prompt_logprobs = 2;
  request.n = 2;
  request.sampling.temperature = 3;
  const Sink twice = Submit(request), sink = Submit(request);  // the second one finds its pages in the cache
  ASSERT_TRUE(sink->Wait().ok() && twice->Wait().ok());
  EXPECT_EQ(twice->prompt_scores().size(), 28u);
  ASSERT_EQ(sink->prompt_scores().size(), 28u);
  std::vector<int32_t> history = {request.prompt[0]};
  for (size_t i = 0; i < 28; ++i) {
    const TokenScores expected = ScoreToken(HashModel(history), request.prompt[i + 1], 2);
    EXPECT_EQ(sink->prompt_scores()[i].chosen.token, request.prompt[i + 1]);
    EXPECT_EQ(sink->prompt_scores()[i].chosen.logprob, expected.chosen.logprob);
    EXPECT_EQ(sink->prompt_scores()[i].top.size(), 2u);
    history.push_back(request.prompt[i + 1]);
  }
  for (int index = 0; index < 2; ++index) {
    history = request.prompt;
    const auto& output = sink->output(index);
    ASSERT_EQ(output.scores.size(), output.tokens.size());
    for (size_t i = 0; i < output.tokens.size(); ++i) {
      const TokenScores expected = ScoreToken(HashModel(history), output.tokens[i], 3);
      EXPECT_EQ(output.scores[i].chosen.rank, expected.chosen.rank);
      EXPECT_EQ(output.scores[i].top[0].token, expected.top[0].token);
      history.push_back(output.tokens[i]);
    }
  }
}

TEST_F(EngineTest, FirstComeFirstServed) {
  EngineOptions options;
  options.max_sequences = 1;
  control->Allow(1);
  Start(Info(), options, Recite("abc", 1));
  std::vector<Sink> sinks;
  for (int i = 0; i < 6; ++i) sinks.push_back(Submit(Request("p", 3)));
  for (int i = 0; i < 6; ++i) {
    control->Allow(control->steps() == 0 ? 3 : 2 + (i > 0));
    ASSERT_TRUE(sinks[i]->Wait().ok());
    for (int j = i + 1; j < 6; ++j) EXPECT_FALSE(sinks[j]->finished());
  }
}

TEST_F(EngineTest, HeartbeatWhileIdleAndStopAtTheEnd) {
  EngineOptions options;
  options.heartbeat = absl::Milliseconds(10);
  Start(Info(), options);
  absl::SleepFor(absl::Milliseconds(100));
  EXPECT_GE(control->idles(), 3);
  const Sink sink = Submit(Request("x", 5));
  EXPECT_TRUE(sink->Wait().ok());
  engine.reset();
  EXPECT_TRUE(control->stopped());
}

TEST_F(EngineTest, DestructionAnswersEverybody) {
  control->Allow(2);
  Start(Info(), {}, [](absl::Span<const int32_t> history) {
    absl::SleepFor(absl::Milliseconds(2));  // far from its end when the engine goes
    return Recite(std::string(1000, 'z'), 1)(history);
  });
  const Sink runs = Submit(Request("x", 1000));
  ASSERT_TRUE(control->WaitForSteps(2));
  control->FreeRun();
  engine.reset();
  EXPECT_EQ(runs->Wait().code(), absl::StatusCode::kCancelled);
}

TEST_F(EngineTest, OptionsAreChecked) {
  EngineOptions options;
  options.max_tokens_per_step = options.max_sequences;
  const auto engine = Engine::Create(std::make_unique<FakeRunner>(Info()), ByteTokenizer(), options, metrics);
  EXPECT_EQ(engine.status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace cohort::serving
