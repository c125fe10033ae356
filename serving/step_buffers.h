// What a step needs on the device and gives back, in two blocks: one copy there, one copy back.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "runtime/model/batch.h"
#include "runtime/ops/ops.h"
#include "serving/step.h"

namespace cohort::serving {

// How much a step has room for.
struct StepShape {
  int64_t tokens = 0;
  int64_t sequences = 0;
  int64_t table_width = 1;  // pages of the longest sequence
  int64_t rows = 0;         // of logits
  int64_t drawn = 0;        // of these, tokens drawn on the device
};

// What was drawn for one row.
struct Draw {
  int32_t token = 0;  // or kBrokenLogits, kNothingToDraw
  float logprob = 0;
  int32_t rank = 0;
};

// Addresses do not change, so that a recorded step finds what Write put there last.
class StepBuffers {
 public:
  // Where the batch is longer than the step: each sequence too many is one token of its own, the i-th in slot
  // first_padding_slot + i, which no page of a real sequence has, and is drawn greedily.
  StepBuffers(runtime::Device& device, const StepShape& shape, int64_t page_size = 1,
              int64_t first_padding_slot = 0);

  // `drawn`: of step.rows, those drawn on the device, in order.
  void Write(const RankStep& step, absl::Span<const int> drawn);
  const runtime::PagedBatch& batch() const { return batch_; }
  // Enqueues the draws from logits [drawn, V].
  void DrawFrom(const runtime::Tensor& logits) const;
  // Waits for the first `count` draws.
  std::vector<Draw> Read(size_t count) const;

 private:
  // A field's place in the block, in words.
  struct Field {
    int64_t begin = 0, size = 0;
  };
  Field AddField(int64_t size);
  runtime::Tensor View(const runtime::Tensor& block, Field field, runtime::Shape shape, DataType dtype) const;
  template <typename T>
  void Put(Field field, int64_t at, absl::Span<const T> values);
  void FillPadding(int64_t page_size, int64_t first_padding_slot);

  runtime::Device& device_;
  const StepShape shape_;
  int64_t words_ = 0;
  Field tokens_, positions_, slots_, query_offsets_, context_lengths_, page_table_, logit_rows_;
  Field temperatures_, top_k_, top_p_, min_p_, draws_;
  std::vector<int32_t> padding_, host_;
  runtime::Tensor input_;   // kI32 [words]
  runtime::Tensor output_;  // kI32 [3, drawn]: tokens, logprobs, ranks
  runtime::PagedBatch batch_;
  runtime::SamplingRows sampling_;
  runtime::Tensor drawn_tokens_, logprobs_, ranks_;  // of output_
};

}  // namespace cohort::serving
