// Decode steps that are recorded and replayed, on the device whose addresses the host cannot read: the tokens are those
// of steps that are computed one by one, and a replayed step asks for nothing but its tokens.
#include "serving/recorded_decode.h"

#include <gtest/gtest.h>

#include <random>

#include "serving/decoder_runner.h"
#include "serving/engine.h"
#include "tests/runtime/device/far_device.h"
#include "tests/serving/collecting_sink.h"
#include "tests/serving/small_decoder.h"
#include "tests/serving/test_tokenizer.h"
#include "tests/support/cuda_or_skip.h"
#include "tests/support/ranks.h"

namespace cohort::serving {
namespace {

using Output = CollectingSink::Output;

// Greedy and drawn, with all filters; some with what only the host knows, some with scores; lengths such that requests
// come and go and pages fill up at different steps.
std::vector<GenerationRequest> MixedRequests() {
  std::mt19937 random(11);
  std::vector<GenerationRequest> requests(12);
  for (size_t i = 0; i < requests.size(); ++i) {
    GenerationRequest& request = requests[i];
    for (size_t j = 0; j < 1 + random() % 14; ++j)
      request.prompt.push_back(static_cast<int32_t>(random() % 256));
    SamplingParams& sampling = request.sampling;
    sampling.temperature = i % 4 == 0 ? 0 : 0.5f + 0.3f * static_cast<float>(i % 3);
    sampling.top_k = i % 3 == 1 ? 20 : 0;
    sampling.top_p = i % 5 == 2 ? 0.8f : 1;
    sampling.min_p = i % 6 == 3 ? 0.05f : 0;
    sampling.seed = 100 + i;
    if (i == 5) sampling.repetition_penalty = 1.3f;
    if (i == 6) sampling.logit_bias = {{7, 2.5f}, {9, -3}};
    if (i == 7) request.logprobs = 0;
    if (i == 8) request.logprobs = 3;
    if (i == 9) request.n = 3;
    request.stopping.max_tokens = 5 + static_cast<int32_t>(3 * i);
    if (i == 10) request.stopping.min_tokens = 9;
    request.stopping.ignore_eos = i != 10;
  }
  return requests;
}

// What every completion of every request gets.
std::vector<Output> Generate(const char* family, runtime::Device& device, bool record,
                             int64_t max_sequences) {
  const auto decoder = SmallDecoder(family, {}, device);
  EngineOptions options;
  options.max_sequences = max_sequences;
  options.max_tokens_per_step = max_sequences + 9;
  options.check_every_step = true;
  CacheOptions cache;
  cache.page_size = 4;
  cache.bytes = (14 * max_sequences + 6) * BytesOfPage(*decoder, 4);
  cache.record = record;
  auto runner = DecoderRunner::Create(*decoder, cache, max_sequences);
  EXPECT_TRUE(runner.ok()) << runner.status();
  Metrics metrics("small");
  const auto engine = Engine::Create(*std::move(runner), ByteTokenizer(), options, metrics);
  EXPECT_TRUE(engine.ok()) << engine.status();
  const std::vector<GenerationRequest> requests = MixedRequests();
  std::vector<std::shared_ptr<CollectingSink>> sinks;
  for (const GenerationRequest& request : requests) {
    sinks.push_back(std::make_shared<CollectingSink>());
    EXPECT_TRUE((*engine)->Submit(request, sinks.back()).ok());
  }
  std::vector<Output> outputs;
  for (size_t i = 0; i < requests.size(); ++i) {
    EXPECT_EQ(sinks[i]->Wait(), absl::OkStatus()) << i;
    for (int index = 0; index < requests[i].n; ++index) outputs.push_back(sinks[i]->output(index));
  }
  return outputs;
}

void ExpectSame(const std::vector<Output>& got, const std::vector<Output>& want) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < got.size(); ++i) {
    EXPECT_EQ(got[i].tokens, want[i].tokens) << i;
    EXPECT_EQ(got[i].text, want[i].text) << i;
    ASSERT_EQ(got[i].scores.size(), want[i].scores.size()) << i;
    for (size_t j = 0; j < got[i].scores.size(); ++j) {
      const TokenScores &a = got[i].scores[j], &b = want[i].scores[j];
      EXPECT_EQ(a.chosen.token, b.chosen.token);
      EXPECT_EQ(a.chosen.rank, b.chosen.rank);
      EXPECT_NEAR(a.chosen.logprob, b.chosen.logprob, 1e-4);
      ASSERT_EQ(a.top.size(), b.top.size());
      for (size_t k = 0; k < a.top.size(); ++k) EXPECT_EQ(a.top[k].token, b.top[k].token);
    }
  }
}

// By family: dense, and mixtures of experts.
class RecordedDecodeOf : public ::testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Families, RecordedDecodeOf, ::testing::Values("llama", "mixtral", "qwen3_moe"),
                         [](const auto& info) { return info.param; });

TEST_P(RecordedDecodeOf, TokensAreThoseOfStepsThatAreNotRecorded) {
  for (int64_t max_sequences : {1, 3, 8}) {
    testing::RunProcesses(1, [&](int, int, const std::string&) {
      SCOPED_TRACE(max_sequences);
      const std::vector<Output> host = Generate(GetParam(), runtime::CpuDevice(), true, max_sequences);
      const std::vector<Output> eager = Generate(GetParam(), runtime::FarDevice(), false, max_sequences);
      EXPECT_EQ(runtime::FarDeviceCalls().replays, 0);
      const std::vector<Output> recorded = Generate(GetParam(), runtime::FarDevice(), true, max_sequences);
      const runtime::FarCalls calls = runtime::FarDeviceCalls();
      EXPECT_GE(calls.replays, 20);
      EXPECT_LE(calls.recordings, 2 * 4) << "1, 2, 4, 8: one a size, and one to measure its memory";
      ExpectSame(eager, host);
      ExpectSame(recorded, host);
    });
  }
}

TEST_P(RecordedDecodeOf, AndOnAGpu) {
  COHORT_CUDA_OR_SKIP(device);
  for (int64_t max_sequences : {1, 3, 8}) {
    SCOPED_TRACE(max_sequences);
    ExpectSame(Generate(GetParam(), device, true, max_sequences),
               Generate(GetParam(), device, false, max_sequences));
  }
}

// Sequences of one page table each, all with one token more than before.
RankStep DecodeStep(int32_t sequences, int32_t position, int32_t page_size) {
  RankStep step;
  const int32_t pages_each = 64 / page_size;
  for (int32_t s = 0; s < sequences; ++s) {
    std::vector<int32_t> pages;
    for (int32_t p = 0; p <= position / page_size; ++p) pages.push_back(s * pages_each + p);
    step.tokens.push_back((17 * s + 5 * position) % 256);
    step.positions.push_back(position);
    step.slots.push_back(pages.back() * page_size + position % page_size);
    step.query_offsets.push_back(s + 1);
    step.context_lengths.push_back(position + 1);
    step.page_table.push_back(std::move(pages));
    WantedRow row;
    row.row = s;
    row.params.temperature = s == 0 ? 0 : 1;
    row.params.seed = s;
    row.position = position;
    row.top_scores = s == 1 ? 0 : -1;
    step.rows.push_back(row);
  }
  return step;
}

runtime::FarCalls Since(const runtime::FarCalls& before) {
  runtime::FarCalls calls = runtime::FarDeviceCalls();
  calls.allocations -= before.allocations;
  calls.copies_from_host -= before.copies_from_host;
  calls.copies_to_host -= before.copies_to_host;
  calls.waits -= before.waits;
  calls.enqueued -= before.enqueued;
  calls.recordings -= before.recordings;
  calls.replays -= before.replays;
  return calls;
}

TEST_P(RecordedDecodeOf, AReplayedStepAllocatesNothingAndWaitsForItsTokensOnly) {
  testing::RunProcesses(1, [](int, int, const std::string&) {
    constexpr int32_t kPageSize = 4;
    const auto decoder = SmallDecoder(GetParam(), {}, runtime::FarDevice());
    CacheOptions cache;
    cache.page_size = kPageSize;
    auto runner = DecoderRunner::Create(*decoder, cache, 8);
    cache.record = false;
    auto eager = DecoderRunner::Create(*decoder, cache, 8);
    ASSERT_TRUE(runner.ok() && eager.ok());
    for (int32_t position = 0; position < 11; ++position) {
      for (int32_t sequences : {3, 8, 1}) {  // the first of 3 and then of 4 share a recording
        SCOPED_TRACE(::testing::Message() << sequences << " sequences at " << position);
        const RankStep step = DecodeStep(sequences == 3 ? 3 + position % 2 : sequences, position, kPageSize);
        const runtime::FarCalls before = runtime::FarDeviceCalls();
        const auto got = (*runner)->RunRank(step);
        const runtime::FarCalls calls = Since(before);
        ASSERT_TRUE(got.ok()) << got.status();
        EXPECT_EQ(calls.copies_from_host, 1);
        EXPECT_EQ(calls.copies_to_host, 1);
        EXPECT_EQ(calls.waits, 0);
        EXPECT_EQ(calls.replays, 1);
        EXPECT_EQ(calls.recordings, position == 0 ? 1 : 0);
        if (position > 0) {
          EXPECT_EQ(calls.allocations, 0);
          EXPECT_EQ(calls.enqueued, 2) << "the copy and the replay";
        }
        const runtime::FarCalls before_eager = runtime::FarDeviceCalls();
        const auto want = (*eager)->RunRank(step);
        ASSERT_TRUE(want.ok()) << want.status();
        EXPECT_GT(Since(before_eager).allocations, 10);
        EXPECT_EQ(Since(before_eager).replays, 0);
        for (size_t i = 0; i < step.rows.size(); ++i) {
          EXPECT_EQ(got->rows[i].error, "");
          EXPECT_EQ(got->rows[i].token, want->rows[i].token) << i;
          ASSERT_EQ(got->rows[i].scores.has_value(), i == 1);
          if (i != 1 || step.rows.size() == 3) continue;
          EXPECT_EQ(got->rows[i].scores->chosen.logprob, want->rows[i].scores->chosen.logprob)
              << "the same bits where nothing is padded";
        }
      }
    }
  });
}

TEST_P(RecordedDecodeOf, KeepsTheMemoryThatWasMeasured) {
  testing::RunProcesses(1, [](int, int, const std::string&) {
    const auto decoder = SmallDecoder(GetParam(), {}, runtime::FarDevice());
    CacheOptions cache;
    cache.page_size = 4;
    for (int64_t max_sequences : {1, 5, 8}) {
      SCOPED_TRACE(max_sequences);
      auto runner = DecoderRunner::Create(*decoder, cache, max_sequences);
      ASSERT_TRUE(runner.ok()) << runner.status();
      const auto measured = RecordedDecode::MeasureBytes(*decoder, (*runner)->info(), max_sequences);
      ASSERT_TRUE(measured.ok()) << measured.status();
      const size_t before = runtime::FarDevice().allocated_bytes();
      for (int32_t sequences = 1; sequences <= max_sequences; ++sequences) {
        ASSERT_TRUE((*runner)->RunRank(DecodeStep(sequences, 9, 4)).ok());
      }
      EXPECT_EQ(static_cast<int64_t>(runtime::FarDevice().allocated_bytes() - before), *measured);
      EXPECT_GT(*measured, max_sequences * kByteVocabulary * 4) << "the logits are among them";
    }
  });
}

// What is free would do for the cache, and not for the recordings beside it.
TEST(RecordedDecodeTest, ACacheThatLeavesNoRoomForRecordingsIsRefused) {
  testing::RunProcesses(1, [](int, int, const std::string&) {
    runtime::Device& far = runtime::FarDevice();
    const auto decoder = SmallDecoder("mixtral", {}, far);
    constexpr int64_t kSequences = 4;
    CacheOptions cache;
    cache.page_size = 4;
    const RunnerInfo info = (*DecoderRunner::Create(*decoder, cache, kSequences))->info();
    const int64_t measured = *RecordedDecode::MeasureBytes(*decoder, info, kSequences);
    const int64_t pages = info.pages + RecordedDecode::PaddingPages(info, kSequences);
    const int64_t needed = pages * BytesOfPage(*decoder, 4) + measured;
    const int64_t words = (far.free_bytes() - needed) / 256 * 64;
    const runtime::Tensor others = runtime::Tensor::Empty(far, {words}, DataType::kI32);
    EXPECT_TRUE(DecoderRunner::Create(*decoder, cache, kSequences).ok());
    const runtime::Tensor more = runtime::Tensor::Empty(far, {64}, DataType::kI32);
    const absl::Status refused = DecoderRunner::Create(*decoder, cache, kSequences).status();
    EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
    EXPECT_NE(refused.message().find("recorded decode steps"), absl::string_view::npos) << refused;
    cache.record = false;
    EXPECT_TRUE(DecoderRunner::Create(*decoder, cache, kSequences).ok());
  });
}

// A row of the host's among rows of the device: its logits are read back, and no more than these.
TEST(RecordedDecodeTest, RowsOfTheHostCostOneCopyMore) {
  testing::RunProcesses(1, [](int, int, const std::string&) {
    const auto decoder = SmallDecoder("llama", {}, runtime::FarDevice());
    CacheOptions cache;
    cache.page_size = 4;
    auto runner = DecoderRunner::Create(*decoder, cache, 4);
    ASSERT_TRUE(runner.ok());
    RankStep step = DecodeStep(4, 0, 4);
    const auto plain = (*runner)->RunRank(step);
    ASSERT_TRUE(plain.ok());
    step.rows[2].params.logit_bias = {{33, 1000.0f}};
    const runtime::FarCalls before = runtime::FarDeviceCalls();
    const auto got = (*runner)->RunRank(step);
    ASSERT_TRUE(got.ok());
    EXPECT_EQ(Since(before).copies_to_host, 2);
    EXPECT_EQ(got->rows[2].token, 33);
    EXPECT_EQ(got->rows[3].token, plain->rows[3].token);
  });
}

TEST(RecordedDecodeTest, TakesStepsOfOneDrawnTokenASequence) {
  EXPECT_TRUE(RecordedDecode::Takes(DecodeStep(3, 5, 4)));
  EXPECT_FALSE(RecordedDecode::Takes(RankStep()));
  RankStep prefill = DecodeStep(2, 5, 4);
  prefill.tokens.push_back(1);
  prefill.query_offsets.back() = 3;
  EXPECT_FALSE(RecordedDecode::Takes(prefill));
  RankStep quiet = DecodeStep(2, 5, 4);
  quiet.rows.pop_back();
  EXPECT_FALSE(RecordedDecode::Takes(quiet));
  RankStep scored = DecodeStep(2, 5, 4);
  scored.rows[1].target = 4;
  EXPECT_FALSE(RecordedDecode::Takes(scored));
}

TEST(RowPlaceTest, TheDeviceDrawsWhatItKnows) {
  WantedRow row;
  row.params.temperature = 0.3f;
  row.params.top_k = 4;
  row.params.top_p = 0.5f;
  row.params.min_p = 0.1f;
  EXPECT_EQ(PlaceOf(row), RowPlace::kDevice);
  const auto place_with = [&](auto change) {
    WantedRow changed = row;
    change(changed);
    return PlaceOf(changed);
  };
  EXPECT_EQ(place_with([](WantedRow& r) { r.top_scores = 0; }), RowPlace::kDevice);
  EXPECT_EQ(place_with([](WantedRow& r) { r.top_scores = 1; }), RowPlace::kHost);
  EXPECT_EQ(place_with([](WantedRow& r) { r.target = 1; }), RowPlace::kHost);
  EXPECT_EQ(place_with([](WantedRow& r) { r.banned = {1}; }), RowPlace::kHost);
  EXPECT_EQ(place_with([](WantedRow& r) { r.params.logit_bias = {{1, 1.0f}}; }), RowPlace::kHost);
  EXPECT_EQ(place_with([](WantedRow& r) { r.params.repetition_penalty = 1.1f; }), RowPlace::kHost);
  EXPECT_EQ(place_with([](WantedRow& r) { r.params.presence_penalty = 0.1f; }), RowPlace::kHost);
}

TEST(RecordedDecodeTest, OnlyWhatEnqueuesNothingElsewhereIsRecorded) {
  testing::RunProcesses(1, [](int, int, const std::string&) {
    EXPECT_TRUE(RecordedDecode::Possible(*SmallDecoder("qwen3", {}, runtime::FarDevice())));
    EXPECT_FALSE(RecordedDecode::Possible(*SmallDecoder("qwen3", {})));
    EXPECT_TRUE(RecordedDecode::Possible(*SmallDecoder("mixtral", {}, runtime::FarDevice())));
    const auto hooked = SmallDecoder("llama", {}, runtime::FarDevice());
    runtime::ParameterHooks hooks;
    hooks.before_forward = [](int) { return absl::OkStatus(); };
    hooked->SetHooks(std::move(hooks));
    EXPECT_FALSE(RecordedDecode::Possible(*hooked));
  });
}

}  // namespace
}  // namespace cohort::serving
