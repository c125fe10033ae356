#include "serving/decoder_runner.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "comm/check.h"
#include "serving/batch_plan.h"
#include "serving/policy.h"

namespace cohort::serving {
namespace {

using runtime::Tensor;

StepShape ShapeOf(const RankStep& step, size_t drawn) {
  size_t width = 1;
  for (const auto& pages : step.page_table) width = std::max(width, pages.size());
  return {.tokens = static_cast<int64_t>(step.tokens.size()),
          .sequences = static_cast<int64_t>(step.page_table.size()),
          .table_width = static_cast<int64_t>(width),
          .rows = static_cast<int64_t>(step.rows.size()),
          .drawn = static_cast<int64_t>(drawn)};
}

// Recordings are made by the first steps of their sizes: what they will keep must be free beside the cache.
absl::Status CheckFits(const runtime::Device& device, int64_t cache, int64_t recordings) {
  const int64_t free = device.free_bytes();
  if (cache + recordings <= free) return absl::OkStatus();
  const std::string beside =
      recordings > 0 ? absl::StrCat(" and recorded decode steps, which keep ", recordings >> 20, " MiB, do")
                     : " does";
  return absl::ResourceExhaustedError(
      absl::StrCat("the KV cache of ", cache >> 20, " MiB", beside, " not fit in the ", free >> 20,
                   " MiB that are free: give it less memory, or serve fewer or shorter sequences"));
}

}  // namespace

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
  const bool record = options.record && RecordedDecode::Possible(decoder);
  const int64_t padding = record ? RecordedDecode::PaddingPages(info, max_sequences) : 0;
  const int64_t cache_bytes = (info.pages + padding) * page_bytes;
  COHORT_RETURN_IF_ERROR(CheckFits(decoder.device(), cache_bytes, /*recordings=*/0));
  if (record) {
    COHORT_ASSIGN_OR_RETURN(const int64_t recordings,
                            RecordedDecode::MeasureBytes(decoder, info, max_sequences));
    COHORT_RETURN_IF_ERROR(CheckFits(decoder.device(), cache_bytes, recordings));
  }
  std::unique_ptr<DecoderRunner> runner(new DecoderRunner(decoder, info, padding));
  if (record) {
    runner->recorded_ = std::make_unique<RecordedDecode>(decoder, runner->cache_, info, max_sequences);
  }
  return runner;
}

DecoderRunner::DecoderRunner(runtime::Decoder& decoder, RunnerInfo info, int64_t padding_pages)
    : decoder_(decoder), info_(info), cache_(decoder.MakeCache(info.pages + padding_pages, info.page_size)) {}

absl::StatusOr<StepResult> DecoderRunner::Run(const Step& step) {
  COHORT_CHECK(step.ranks.size() == 1, "a step for %zu ranks on one", step.ranks.size());
  COHORT_ASSIGN_OR_RETURN(RankResult result, RunRank(step.ranks.front()));
  return StepResult{{std::move(result)}};
}

absl::StatusOr<RankResult> DecoderRunner::RunRank(const RankStep& step) {
  const bool recorded = recorded_ != nullptr && RecordedDecode::Takes(step);
  COHORT_ASSIGN_OR_RETURN(const StepOutput output, recorded ? recorded_->Run(step) : Compute(step));
  if (step.rows.empty()) return RankResult();
  return EvaluateRows(step, output, samplers_);
}

// Where logits lie in the host's memory the host draws: nothing has to come back.
absl::StatusOr<StepOutput> DecoderRunner::Compute(const RankStep& step) {
  std::vector<int> drawn;
  for (size_t i = 0; i < step.rows.size() && !decoder_.device().in_host_memory(); ++i) {
    if (PlaceOf(step.rows[i]) == RowPlace::kDevice) drawn.push_back(static_cast<int>(i));
  }
  StepBuffers buffers(decoder_.device(), ShapeOf(step, drawn.size()));
  buffers.Write(step, drawn);
  StepOutput output;
  COHORT_ASSIGN_OR_RETURN(output.logits, decoder_.ForwardPaged(buffers.batch(), cache_));  // [R, V]
  if (drawn.empty()) return output;
  buffers.DrawFrom(PickRows(output.logits, drawn));
  const std::vector<Draw> draws = buffers.Read(drawn.size());
  output.drawn.resize(step.rows.size());
  for (size_t i = 0; i < drawn.size(); ++i) output.drawn[drawn[i]] = draws[i];
  return output;
}

}  // namespace cohort::serving
