#include "serving/step_buffers.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <memory>

#include "comm/check.h"
#include "runtime/ops/sampling.h"
#include "serving/sampler.h"

namespace cohort::serving {
namespace {

using runtime::Shape;
using runtime::Tensor;

constexpr int64_t kWordsAligned =
    64;  // fields begin at multiples of 256 bytes, as tensors of their own would

}  // namespace

StepBuffers::Field StepBuffers::AddField(int64_t size) {
  const Field field = {words_, size};
  words_ += (size + kWordsAligned - 1) / kWordsAligned * kWordsAligned;
  return field;
}

Tensor StepBuffers::View(const Tensor& block, Field field, Shape shape, DataType dtype) const {
  return Tensor::Wrap(device_, std::make_shared<Tensor>(block),
                      static_cast<int32_t*>(block.raw()) + field.begin, std::move(shape), dtype);
}

template <typename T>
void StepBuffers::Put(Field field, int64_t at, absl::Span<const T> values) {
  static_assert(sizeof(T) == sizeof(int32_t));
  const auto count = static_cast<int64_t>(values.size());
  COHORT_CHECK(at + count <= field.size, "%ld values at %ld of %ld", static_cast<long>(count),
               static_cast<long>(at), static_cast<long>(field.size));
  if (count > 0) std::memcpy(host_.data() + field.begin + at, values.data(), values.size() * sizeof(T));
}

StepBuffers::StepBuffers(runtime::Device& device, const StepShape& shape, int64_t page_size,
                         int64_t first_padding_slot)
    : device_(device),
      shape_(shape),
      tokens_(AddField(shape.tokens)),
      positions_(AddField(shape.tokens)),
      slots_(AddField(shape.tokens)),
      query_offsets_(AddField(shape.sequences + 1)),
      context_lengths_(AddField(shape.sequences)),
      page_table_(AddField(shape.sequences * shape.table_width)),
      logit_rows_(AddField(shape.rows)),
      temperatures_(AddField(shape.drawn)),
      top_k_(AddField(shape.drawn)),
      top_p_(AddField(shape.drawn)),
      min_p_(AddField(shape.drawn)),
      draws_(AddField(shape.drawn * runtime::kDrawWords)),
      input_(Tensor::Empty(device, {words_}, DataType::kI32)) {
  FillPadding(page_size, first_padding_slot);
  const auto ints = [&](Field field) { return View(input_, field, {field.size}, DataType::kI32); };
  batch_ = {.tokens = ints(tokens_),
            .positions = ints(positions_),
            .slots = ints(slots_),
            .query_offsets = ints(query_offsets_),
            .context_lengths = ints(context_lengths_),
            .page_table = ints(page_table_).View({shape.sequences, shape.table_width}),
            .logit_rows = ints(logit_rows_)};
  if (shape.drawn == 0) return;
  const auto floats = [&](Field field) { return View(input_, field, {field.size}, DataType::kF32); };
  sampling_ = {.temperatures = floats(temperatures_),
               .top_k = ints(top_k_),
               .top_p = floats(top_p_),
               .min_p = floats(min_p_),
               .draws = ints(draws_).View({shape.drawn, runtime::kDrawWords})};
  output_ = Tensor::Empty(device, {3, shape.drawn}, DataType::kI32);
  drawn_tokens_ = output_.Row(0);
  logprobs_ = View(output_, {shape.drawn, shape.drawn}, {shape.drawn}, DataType::kF32);
  ranks_ = output_.Row(2);
}

void StepBuffers::FillPadding(int64_t page_size, int64_t first_padding_slot) {
  padding_.assign(words_, 0);
  const auto at = [&](Field field, int64_t i) -> int32_t& { return padding_[field.begin + i]; };
  for (int64_t i = 0; i < shape_.sequences; ++i) {
    const int64_t slot = first_padding_slot + i;
    if (i < shape_.tokens) at(slots_, i) = static_cast<int32_t>(slot);
    at(query_offsets_, i + 1) = static_cast<int32_t>(i + 1);
    at(context_lengths_, i) = 1;
    at(page_table_, i * shape_.table_width) = static_cast<int32_t>(slot / page_size);
  }
  for (int64_t i = 0; i < shape_.rows; ++i) at(logit_rows_, i) = static_cast<int32_t>(i);
  for (int64_t i = 0; i < shape_.drawn; ++i) at(top_p_, i) = std::bit_cast<int32_t>(1.0f);
}

void StepBuffers::Write(const RankStep& step, absl::Span<const int> drawn) {
  host_ = padding_;
  const auto ints = [&](Field field, int64_t at, const std::vector<int32_t>& values) {
    Put<int32_t>(field, at, values);
  };
  ints(tokens_, 0, step.tokens);
  ints(positions_, 0, step.positions);
  ints(slots_, 0, step.slots);
  ints(query_offsets_, 0, step.query_offsets);
  ints(context_lengths_, 0, step.context_lengths);
  for (size_t s = 0; s < step.page_table.size(); ++s) {
    const int64_t begin = static_cast<int64_t>(s) * shape_.table_width;
    COHORT_CHECK(static_cast<int64_t>(step.page_table[s].size()) <= shape_.table_width,
                 "%zu pages in a table of %ld", step.page_table[s].size(),
                 static_cast<long>(shape_.table_width));
    ints(page_table_, begin, step.page_table[s]);
  }
  for (size_t i = 0; i < step.rows.size(); ++i) {
    Put<int32_t>(logit_rows_, static_cast<int64_t>(i), {step.rows[i].row});
  }
  for (size_t i = 0; i < drawn.size(); ++i) {
    const WantedRow& wanted = step.rows[drawn[i]];
    const runtime::RowSampling row = RowOf(wanted.params, wanted.position, wanted.completion);
    const auto at = static_cast<int64_t>(i);
    int32_t words[runtime::kDrawWords];
    runtime::PutDraw(row, words);
    Put<float>(temperatures_, at, {row.temperature});
    Put<int32_t>(top_k_, at, {row.top_k});
    Put<float>(top_p_, at, {row.top_p});
    Put<float>(min_p_, at, {row.min_p});
    Put<int32_t>(draws_, at * runtime::kDrawWords, words);
  }
  device_.CopyFromHost(host_.data(), input_);
}

void StepBuffers::DrawFrom(const Tensor& logits) const {
  device_.ops().SampleTokens(logits, sampling_, drawn_tokens_, logprobs_, ranks_);
}

std::vector<Draw> StepBuffers::Read(size_t count) const {
  const Tensor here = runtime::OnHost(output_);
  const int32_t* const words = here.data<int32_t>();
  std::vector<Draw> draws(count);
  for (size_t i = 0; i < count; ++i) {
    draws[i] = {words[i], std::bit_cast<float>(words[shape_.drawn + i]), words[2 * shape_.drawn + i]};
  }
  return draws;
}

}  // namespace cohort::serving
