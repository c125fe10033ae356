#include "serving/decoder_runner.h"

#include <omp.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "comm/check.h"
#include "serving/batch_plan.h"
#include "serving/policy.h"

namespace cohort::serving {
namespace {

using runtime::Tensor;

Tensor Ints(runtime::Device& device, const std::vector<int32_t>& values) {
  return Tensor::FromHost(device, {static_cast<int64_t>(values.size())}, absl::MakeConstSpan(values));
}

runtime::PagedBatch MakeBatch(const RankStep& step, runtime::Device& device) {
  std::vector<int32_t> rows;
  for (const WantedRow& row : step.rows) rows.push_back(row.row);
  size_t width = 1;
  for (const auto& pages : step.page_table) width = std::max(width, pages.size());
  std::vector<int32_t> table(step.page_table.size() * width, 0);
  for (size_t s = 0; s < step.page_table.size(); ++s) {
    std::copy(step.page_table[s].begin(), step.page_table[s].end(), table.begin() + s * width);
  }
  runtime::PagedBatch batch;
  batch.tokens = Ints(device, step.tokens);
  batch.positions = Ints(device, step.positions);
  batch.slots = Ints(device, step.slots);
  batch.query_offsets = Ints(device, step.query_offsets);
  batch.context_lengths = Ints(device, step.context_lengths);
  batch.page_table =
      Ints(device, table).View({static_cast<int64_t>(step.page_table.size()), static_cast<int64_t>(width)});
  batch.logit_rows = Ints(device, rows);
  return batch;
}

}  // namespace

RowResult EvaluateRow(absl::Span<const float> logits, const WantedRow& row, Sampler& sampler) {
  RowResult result;
  if (row.target) {
    result.token = *row.target;
  } else {
    const auto token = sampler.Sample(
        logits, {&row.params, row.prompt, row.output, row.banned, row.position, row.completion});
    if (!token.ok()) {
      result.error = std::string(token.status().message());
      return result;
    }
    result.token = *token;
  }
  if (row.top_scores >= 0) result.scores = ScoreToken(logits, result.token, row.top_scores);
  return result;
}

absl::StatusOr<std::unique_ptr<DecoderRunner>> DecoderRunner::Create(runtime::Decoder& decoder,
                                                                     CacheOptions options,
                                                                     int64_t max_sequences) {
  const runtime::ModelConfig& config = decoder.config();
  RunnerInfo info;
  info.page_size = options.page_size > 0 ? options.page_size : policy::kPageSize;
  info.vocabulary_size = static_cast<int32_t>(config.vocab_size);
  info.context_length = static_cast<int32_t>(config.max_position_embeddings);
  const int64_t page_bytes = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim *
                             info.page_size * static_cast<int64_t>(SizeOf(decoder.compute()));
  const int64_t bytes = options.bytes > 0 ? options.bytes : policy::kCacheBytes;
  const int64_t useful = max_sequences * PagesFor(info.context_length, info.page_size);
  info.pages = static_cast<int32_t>(std::min({bytes / page_bytes, useful, int64_t{1} << 30}));
  if (info.pages < 1) {
    return absl::InvalidArgumentError(absl::StrCat("the KV cache has ", bytes, " bytes; one page of ",
                                                   info.page_size, " tokens needs ", page_bytes));
  }
  if (const int64_t free = decoder.device().free_bytes(); info.pages * page_bytes > free) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "the KV cache of ", info.pages * page_bytes >> 20, " MiB does not fit in the ", free >> 20,
        " MiB that are free: give it less memory, or serve fewer or shorter sequences"));
  }
  return std::unique_ptr<DecoderRunner>(new DecoderRunner(decoder, info));
}

DecoderRunner::DecoderRunner(runtime::Decoder& decoder, RunnerInfo info)
    : decoder_(decoder), info_(info), cache_(decoder.MakeCache(info.pages, info.page_size)) {}

absl::StatusOr<StepResult> DecoderRunner::Run(const Step& step) {
  COHORT_CHECK(step.ranks.size() == 1, "a step for %zu ranks on one", step.ranks.size());
  COHORT_ASSIGN_OR_RETURN(RankResult result, RunRank(step.ranks.front()));
  return StepResult{{std::move(result)}};
}

absl::StatusOr<RankResult> DecoderRunner::RunRank(const RankStep& step) {
  COHORT_ASSIGN_OR_RETURN(const Tensor logits,
                          decoder_.ForwardPaged(MakeBatch(step, decoder_.device()), cache_));  // [R, V]
  RankResult result;
  if (step.rows.empty()) return result;
  const Tensor here = OnHost(logits);
  const Tensor host = here.dtype() == DataType::kF32 ? here : here.To(runtime::CpuDevice(), DataType::kF32);
  const auto vocabulary = static_cast<size_t>(host.dim(1));
  const auto rows = static_cast<int>(step.rows.size());
  const int threads = std::min(rows, runtime::CpuThreads());
  if (samplers_.size() < static_cast<size_t>(threads)) samplers_.resize(threads);
  result.rows.resize(rows);
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
  for (int i = 0; i < rows; ++i) {
    result.rows[i] = EvaluateRow({host.data<float>() + i * vocabulary, vocabulary}, step.rows[i],
                                 samplers_[omp_get_thread_num()]);
  }
  return result;
}

}  // namespace cohort::serving
