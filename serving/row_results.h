// From logits to what a step's rows want: drawn on the device where that can be, on the host where it cannot.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "runtime/tensor.h"
#include "serving/sampler.h"
#include "serving/step.h"
#include "serving/step_buffers.h"

namespace cohort::serving {

// Where a row's token is made. The device knows temperature, top_k, top_p and min_p, and the score of what it has drawn;
// penalties, biases, bans, given targets and the scores of other tokens are the host's, which then reads the row's logits.
enum class RowPlace : uint8_t { kDevice, kHost };
RowPlace PlaceOf(const WantedRow& row);

// What a forward left: logits [at least the rows wanted, V], and of the rows that were drawn already their draws.
struct StepOutput {
  runtime::Tensor logits;
  std::vector<std::optional<Draw>> drawn;  // one a wanted row, or empty
};

// Rows [list] of logits, the same tensor where they are all.
runtime::Tensor PickRows(const runtime::Tensor& logits, const std::vector<int>& list);

// One row of logits: what WantedRow asks for.
RowResult EvaluateRow(absl::Span<const float> logits, const WantedRow& row, Sampler& sampler);

// All of them. `samplers`: grows to one a thread.
RankResult EvaluateRows(const RankStep& step, const StepOutput& output, std::vector<Sampler>& samplers);

}  // namespace cohort::serving
