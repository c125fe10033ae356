#include "serving/decoder_runner.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "serving/engine.h"
#include "tests/runtime/device/far_device.h"
#include "tests/serving/collecting_sink.h"
#include "tests/serving/small_decoder.h"
#include "tests/serving/test_tokenizer.h"
#include "tests/support/ranks.h"

namespace cohort::serving {
namespace {

// Several sequences at once, prompts in chunks, pages shared and preempted: each gets the tokens that the
// whole-sequence logits of the same model on the CPU say.
void CheckFamily(const char* family, runtime::Device& device = runtime::CpuDevice()) {
  SCOPED_TRACE(family);
  const auto decoder = SmallDecoder(family, {}, device), judge = SmallDecoder(family);
  ASSERT_NE(decoder, nullptr);
  EngineOptions options;
  options.max_sequences = 3;
  options.max_tokens_per_step = 7;
  options.check_every_step = true;
  CacheOptions cache;
  cache.page_size = 4;
  cache.bytes = 11 * BytesOfPage(*decoder, 4);
  auto runner = DecoderRunner::Create(*decoder, cache, options.max_sequences);
  ASSERT_TRUE(runner.ok()) << runner.status();
  EXPECT_EQ((*runner)->info().pages, 11);
  Metrics metrics("small");
  const auto engine = Engine::Create(*std::move(runner), ByteTokenizer(), options, metrics);
  ASSERT_TRUE(engine.ok()) << engine.status();
  std::vector<GenerationRequest> requests = SmallRequests();
  std::vector<std::shared_ptr<CollectingSink>> sinks;
  for (const GenerationRequest& request : requests) {
    sinks.push_back(std::make_shared<CollectingSink>());
    ASSERT_TRUE((*engine)->Submit(request, sinks.back()).ok());
  }
  for (size_t i = 0; i < requests.size(); ++i) {
    ASSERT_EQ(sinks[i]->Wait(), absl::OkStatus());
    EXPECT_EQ(sinks[i]->output().tokens, GreedyByLogits(*judge, requests[i])) << i;
  }
}

// In processes of their own: OpenMP's threads must not be there when a later test forks.
TEST(DecoderRunnerTest, GreedyEqualsTokenByTokenLogits) {
  testing::RunProcesses(1, [](int, int, const std::string&) {
    for (const char* family : {"llama", "qwen3", "mixtral", "qwen3_moe"}) CheckFamily(family);
  });
}

TEST(DecoderRunnerTest, TheSameOnADeviceThatIsNotTheHostsMemory) {
  testing::RunProcesses(1, [](int, int, const std::string&) {
    for (const char* family : {"llama", "qwen3_moe"}) CheckFamily(family, runtime::FarDevice());
  });
}

TEST(DecoderRunnerTest, ACacheWithoutAPageIsRefused) {
  testing::RunProcesses(1, [](int, int, const std::string&) {
    const auto decoder = SmallDecoder("llama");
    CacheOptions cache;
    cache.bytes = 100;
    EXPECT_EQ(DecoderRunner::Create(*decoder, cache, 1).status().code(), absl::StatusCode::kInvalidArgument);
    cache.bytes = int64_t{1} << 40;  // no more than can be used
    const auto runner = DecoderRunner::Create(*decoder, cache, 2);
    ASSERT_TRUE(runner.ok());
    EXPECT_EQ((*runner)->info().pages, 2 * 64 / 16);
  });
}

}  // namespace
}  // namespace cohort::serving
