// Inference through pages against the logits of whole sequences.
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/support/tiny_model.h"

namespace cohort::runtime {
namespace {

constexpr int64_t kPages = 24, kPageSize = 4;

// Sequences that grow through the pages of a cache. Pages are handed out in a scrambled order.
class PagedRun {
 public:
  PagedRun(Decoder& decoder, std::vector<std::vector<int32_t>> sequences)
      : decoder_(decoder),
        sequences_(std::move(sequences)),
        done_(sequences_.size(), 0),
        pages_(sequences_.size()),
        cache_(decoder.MakeCache(kPages, kPageSize)) {
    for (int64_t page = 0; page < kPages; ++page) free_.push_back(static_cast<int32_t>(page * 7 % kPages));
  }

  int Left(size_t sequence) const { return static_cast<int>(sequences_[sequence].size()) - done_[sequence]; }

  // Runs the next take[i] tokens of sequence which[i]. Logits of all the tokens that were
  // run, in the batch's order.
  std::vector<std::pair<size_t, int>> Step(const std::vector<std::pair<size_t, int>>& chunks,
                                           Tensor& logits) {
    std::vector<int32_t> tokens, positions, slots, offsets = {0}, contexts, rows;
    std::vector<std::pair<size_t, int>> ran;
    for (const auto& [sequence, take] : chunks) {
      for (int i = 0; i < take; ++i) {
        const int position = done_[sequence]++;
        if (position % kPageSize == 0) {
          pages_[sequence].push_back(free_.back());
          free_.pop_back();
        }
        tokens.push_back(sequences_[sequence][position]);
        positions.push_back(position);
        slots.push_back(pages_[sequence][position / kPageSize] * kPageSize + position % kPageSize);
        rows.push_back(static_cast<int32_t>(rows.size()));
        ran.emplace_back(sequence, position);
      }
      offsets.push_back(static_cast<int32_t>(tokens.size()));
      contexts.push_back(done_[sequence]);
    }
    // The rows are wanted in another order than the tokens', and one of them twice.
    std::reverse(rows.begin(), rows.end());
    std::reverse(ran.begin(), ran.end());
    rows.push_back(rows.front());
    ran.push_back(ran.front());

    size_t most = 1;
    for (const auto& [sequence, take] : chunks) most = std::max(most, pages_[sequence].size());
    std::vector<int32_t> table;
    for (const auto& [sequence, take] : chunks) {
      for (size_t i = 0; i < most; ++i)
        table.push_back(i < pages_[sequence].size() ? pages_[sequence][i] : -1);
    }
    Device& device = decoder_.device();
    const auto tensor = [&](Shape shape, const std::vector<int32_t>& values) {
      return Tensor::FromHost(device, std::move(shape), absl::MakeConstSpan(values));
    };
    const auto count = static_cast<int64_t>(tokens.size()), batch = static_cast<int64_t>(chunks.size());
    const PagedBatch paged = {.tokens = tensor({count}, tokens),
                              .positions = tensor({count}, positions),
                              .slots = tensor({count}, slots),
                              .query_offsets = tensor({batch + 1}, offsets),
                              .context_lengths = tensor({batch}, contexts),
                              .page_table = tensor({batch, static_cast<int64_t>(most)}, table),
                              .logit_rows = tensor({count + 1}, rows)};
    auto result = decoder_.ForwardPaged(paged, cache_);
    EXPECT_TRUE(result.ok()) << result.status();
    logits = *result;
    return ran;
  }

  // Runs the chunks and compares every token's logits with those of whole sequences, [T, V] packed.
  void StepAndCheck(const std::vector<std::pair<size_t, int>>& chunks, const Tensor& whole, double bound) {
    Tensor logits;
    const auto ran = Step(chunks, logits);
    ASSERT_EQ(logits.dim(0), static_cast<int64_t>(ran.size()));
    for (size_t i = 0; i < ran.size(); ++i) {
      int64_t row = ran[i].second;
      for (size_t s = 0; s < ran[i].first; ++s) row += static_cast<int64_t>(sequences_[s].size());
      EXPECT_LT(RelativeError(ToHost(logits.Row(static_cast<int64_t>(i))), ToHost(whole.Row(row))), bound)
          << "token " << ran[i].second << " of sequence " << ran[i].first;
    }
  }

 private:
  Decoder& decoder_;
  std::vector<std::vector<int32_t>> sequences_;
  std::vector<int> done_;
  std::vector<std::vector<int32_t>> pages_;
  std::vector<int32_t> free_;
  KvCache cache_;
};

struct Case {
  const char* name;
  const char* model_type;
  bool reference;
  DataType compute;
  double bound;
};

class PagedTest : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    config_ = SmallConfig(GetParam().model_type);
    Device& device = GetParam().reference ? ReferenceDevice() : CpuDevice();
    decoder_ = MakeDecoder(config_, device, {.compute = GetParam().compute, .trainable = false});
    sequences_ = RandomSequences({11, 1, 23}, config_.vocab_size, 9);
    auto logits = decoder_->Logits(PackBatch(device, sequences_));
    ASSERT_TRUE(logits.ok()) << logits.status();
    whole_ = *logits;
  }

  ModelConfig config_;
  std::unique_ptr<Decoder> decoder_;
  std::vector<std::vector<int32_t>> sequences_;
  Tensor whole_;
};

TEST_P(PagedTest, TokenByToken) {
  PagedRun run(*decoder_, sequences_);
  while (run.Left(2) > 0) {
    std::vector<std::pair<size_t, int>> chunks;
    for (size_t s = 0; s < 3; ++s) {
      if (run.Left(s) > 0) chunks.emplace_back(s, 1);
    }
    run.StepAndCheck(chunks, whole_, GetParam().bound);
  }
}

TEST_P(PagedTest, PrefillInChunks) {
  PagedRun run(*decoder_, sequences_);
  run.StepAndCheck({{2, 9}}, whole_, GetParam().bound);
  run.StepAndCheck({{2, 3}}, whole_, GetParam().bound);
  run.StepAndCheck({{2, 11}}, whole_, GetParam().bound);
}

TEST_P(PagedTest, PrefillsAndDecodesMixed) {
  PagedRun run(*decoder_, sequences_);
  run.StepAndCheck({{0, 7}}, whole_, GetParam().bound);
  run.StepAndCheck({{2, 10}, {0, 1}, {1, 1}}, whole_, GetParam().bound);
  run.StepAndCheck({{0, 1}, {2, 12}}, whole_, GetParam().bound);
  run.StepAndCheck({{2, 1}, {0, 2}}, whole_, GetParam().bound);
}

INSTANTIATE_TEST_SUITE_P(Devices, PagedTest,
                         testing::Values(Case{"reference_llama", "llama", true, DataType::kF64, 1e-12},
                                         Case{"cpu_llama_f32", "llama", false, DataType::kF32, 1e-5},
                                         Case{"cpu_qwen3_f32", "qwen3", false, DataType::kF32, 1e-5},
                                         Case{"cpu_qwen3_bf16", "qwen3", false, DataType::kBF16, 3e-2}),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace cohort::runtime
