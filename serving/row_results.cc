#include "serving/row_results.h"

#include <omp.h>

#include <algorithm>
#include <string>
#include <utility>

namespace cohort::serving {
namespace {

using runtime::Tensor;

RowResult ResultOf(const Draw& draw, const WantedRow& row) {
  RowResult result;
  const auto token = TokenOrError(draw.token);
  if (!token.ok()) {
    result.error = std::string(token.status().message());
    return result;
  }
  result.token = *token;
  if (row.top_scores >= 0)
    result.scores = TokenScores{.chosen = {draw.token, draw.logprob, draw.rank}, .top = {}};
  return result;
}

}  // namespace

RowPlace PlaceOf(const WantedRow& row) {
  const SamplingParams& params = row.params;
  const bool plain = !params.penalizes() && params.logit_bias.empty() && row.banned.empty();
  return plain && !row.target && row.top_scores <= 0 ? RowPlace::kDevice : RowPlace::kHost;
}

Tensor PickRows(const Tensor& logits, const std::vector<int>& list) {
  const auto count = static_cast<int64_t>(list.size());
  if (count == logits.dim(0)) return logits;
  runtime::Device& device = logits.device();
  const Tensor rows = Tensor::FromHost(device, {count}, std::vector<int32_t>(list.begin(), list.end()));
  const Tensor picked = Tensor::Empty(device, {count, logits.dim(1)}, logits.dtype());
  device.ops().GatherRows(logits, rows, picked);
  return picked;
}

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

RankResult EvaluateRows(const RankStep& step, const StepOutput& output, std::vector<Sampler>& samplers) {
  RankResult result;
  result.rows.resize(step.rows.size());
  std::vector<int> of_host;
  for (size_t i = 0; i < step.rows.size(); ++i) {
    if (i < output.drawn.size() && output.drawn[i]) {
      result.rows[i] = ResultOf(*output.drawn[i], step.rows[i]);
    } else {
      of_host.push_back(static_cast<int>(i));
    }
  }
  if (of_host.empty()) return result;
  const Tensor here = OnHost(PickRows(output.logits, of_host));
  const Tensor host = here.dtype() == DataType::kF32 ? here : here.To(runtime::CpuDevice(), DataType::kF32);
  const auto vocabulary = static_cast<size_t>(host.dim(1));
  const auto rows = static_cast<int>(of_host.size());
  const int threads = std::min(rows, runtime::CpuThreads());
  if (samplers.size() < static_cast<size_t>(threads)) samplers.resize(threads);
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
  for (int i = 0; i < rows; ++i) {
    result.rows[of_host[i]] = EvaluateRow({host.data<float>() + i * vocabulary, vocabulary},
                                          step.rows[of_host[i]], samplers[omp_get_thread_num()]);
  }
  return result;
}

}  // namespace cohort::serving
