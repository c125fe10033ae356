#include "runtime/model/block.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "comm/check.h"
#include "runtime/metrics/waited.h"
#include "runtime/model/mlp.h"
#include "runtime/ops/ops.h"

namespace cohort::runtime {
namespace {

absl::StatusOr<Tensor> AwaitRows(std::optional<RowsInFlight>& rows) {
  const WaitScope waits("wait for rows");
  absl::StatusOr<Tensor> here = rows->Arrive();
  rows.reset();
  return here;
}

}  // namespace

Block::Block(const ModelConfig& config, const std::string& prefix, Tensor rope, TensorGroup& tensor,
             ParameterGroup& group)
    : tensor_(tensor),
      eps_(config.rms_norm_eps),
      norm1_(group.Add(absl::StrCat(prefix, "input_layernorm.weight"), {config.hidden_size}, Init::kOnes, 0,
                       false)),
      norm2_(group.Add(absl::StrCat(prefix, "post_attention_layernorm.weight"), {config.hidden_size},
                       Init::kOnes, 0, false)),
      attention_(config, prefix, std::move(rope), tensor, group) {}

absl::StatusOr<std::unique_ptr<Block>> Block::Create(const ModelConfig& config, int layer, Tensor rope,
                                                     Device& device, DataType compute,
                                                     const FeedForwardFactory& factory, TensorGroup& tensor,
                                                     ParameterGroup& group) {
  const std::string prefix = absl::StrCat("model.layers.", layer, ".");
  std::unique_ptr<Block> block(new Block(config, prefix, std::move(rope), tensor, group));
  block->sparse_ = config.IsSparse(layer);
  if (block->sparse_) {
    COHORT_ASSIGN_OR_RETURN(block->feed_forward_, factory(config, layer, prefix, device, compute, group));
  } else {
    block->feed_forward_ =
        std::make_unique<Mlp>(config, absl::StrCat(prefix, "mlp."), config.intermediate_size, tensor, group);
  }
  return block;
}

// ---- forward ----

absl::Status Block::BeginLayer(HalfStream& half, const Parameter& norm) const {
  if (half.input.has_value()) return absl::OkStatus();
  {
    const WaitScope waits("wait for rows");
    COHORT_RETURN_IF_ERROR(half.Arrive(tensor_));
  }
  const Tensor normed = half.stream.AddAndNormalize(norm, eps_, half.rstd);
  half.input.emplace(tensor_.StartGatherRows(normed, half.tokens));
  return absl::OkStatus();
}

void Block::BeginIfHere(HalfStream& half, const Parameter& norm, absl::Status& status) const {
  if (status.ok() && half.Here()) status = BeginLayer(half, norm);
}

absl::Status Block::ForwardAttention(std::vector<HalfStream>& stream, const StreamRows& rows, Keep keep,
                                     Saved& saved) const {
  const bool two = stream.size() == 2;
  for (size_t h = 0; h < stream.size(); ++h) {
    HalfStream& half = stream[h];
    COHORT_RETURN_IF_ERROR(BeginLayer(half, *norm1_));
    if (two) stream[1].Send(tensor_);  // what the block before made last
    if (keep != Keep::kNothing) saved.halves[h].x = half.stream.base, saved.halves[h].rstd1 = half.rstd;
    COHORT_ASSIGN_OR_RETURN(const Tensor x, AwaitRows(half.input));
    // The other half's next layer, before this one's output is sent.
    HalfStream* const other = two && (h == 0 || feed_forward_->divided()) ? &stream[1 - h] : nullptr;
    const Parameter& norm = h == 0 ? *norm1_ : *norm2_;
    absl::Status begun;
    const Meanwhile meanwhile = [&] {
      if (other != nullptr) BeginIfHere(*other, norm, begun);
    };
    COHORT_ASSIGN_OR_RETURN(
        half.summand,
        attention_.Forward(x, rows.halves[h].batch, keep == Keep::kAll ? &saved.halves[h].attention : nullptr,
                           meanwhile));
    COHORT_RETURN_IF_ERROR(begun);
    if (other != nullptr) COHORT_RETURN_IF_ERROR(BeginLayer(*other, norm));
    half.Send(tensor_);
  }
  return absl::OkStatus();
}

absl::Status Block::ForwardDivided(std::vector<HalfStream>& stream, const TokenBatch& batch,
                                   const StreamRows& rows, const LossScale& scale, Keep keep, Saved& saved,
                                   LossSums* sums) const {
  for (size_t h = 0; h < stream.size(); ++h) {
    HalfStream& half = stream[h];
    COHORT_RETURN_IF_ERROR(BeginLayer(half, *norm2_));
    if (keep == Keep::kAll) saved.halves[h].x_mid = half.stream.base, saved.halves[h].rstd2 = half.rstd;
    COHORT_ASSIGN_OR_RETURN(const Tensor x, AwaitRows(half.input));
    HalfStream* const other = h + 1 < stream.size() ? &stream[h + 1] : nullptr;
    absl::Status begun;
    const Meanwhile meanwhile = [&] {
      if (other != nullptr) BeginIfHere(*other, *norm2_, begun);
    };
    COHORT_ASSIGN_OR_RETURN(
        half.summand,
        feed_forward_->Forward(
            {.x = x, .batch = &batch, .offsets = rows.offsets, .scale = scale, .meanwhile = meanwhile},
            keep == Keep::kAll ? &saved.halves[h].feed_forward : nullptr, sums));
    COHORT_RETURN_IF_ERROR(begun);
    if (other != nullptr) COHORT_RETURN_IF_ERROR(BeginLayer(*other, *norm2_));
    // The second half's waits for the gather of the first one's next input, which would otherwise come behind
    // it.
    if (h == 0) half.Send(tensor_);
  }
  return absl::OkStatus();
}

absl::Status Block::ForwardTogether(std::vector<HalfStream>& stream, const TokenBatch& batch,
                                    const StreamRows& rows, const LossScale& scale, Keep keep, Saved& saved,
                                    LossSums* sums) const {
  std::vector<Tensor> normed;
  for (size_t h = 0; h < stream.size(); ++h) {
    HalfStream& half = stream[h];
    COHORT_RETURN_IF_ERROR(half.Arrive(tensor_));
    normed.push_back(half.stream.AddAndNormalize(*norm2_, eps_, half.rstd));
    if (keep == Keep::kAll) saved.halves[h].x_mid = half.stream.base, saved.halves[h].rstd2 = half.rstd;
  }
  COHORT_ASSIGN_OR_RETURN(
      const Tensor delta,
      feed_forward_->Forward({.x = Join(normed), .batch = &batch, .offsets = rows.offsets, .scale = scale},
                             keep == Keep::kAll ? &saved.halves[0].feed_forward : nullptr, sums));
  for (size_t h = 0; h < stream.size(); ++h) {
    stream[h].stream.delta = delta.Slice(rows.halves[h].local.begin, rows.halves[h].local.end);
  }
  return absl::OkStatus();
}

absl::Status Block::Forward(std::vector<HalfStream>& stream, const TokenBatch& batch, const StreamRows& rows,
                            const LossScale& scale, Keep keep, Saved& saved, LossSums* sums) const {
  if (keep != Keep::kNothing) saved.halves.resize(stream.size());
  COHORT_RETURN_IF_ERROR(ForwardAttention(stream, rows, keep, saved));
  return feed_forward_->divided() ? ForwardDivided(stream, batch, rows, scale, keep, saved, sums)
                                  : ForwardTogether(stream, batch, rows, scale, keep, saved, sums);
}

absl::Status Block::Recompute(const TokenBatch& batch, const StreamRows& rows, const LossScale& scale,
                              Saved& saved) const {
  std::vector<HalfStream> stream;
  for (size_t h = 0; h < rows.halves.size(); ++h) {
    stream.emplace_back(saved.halves[h].x, rows.halves[h].batch.num_tokens());
  }
  COHORT_RETURN_IF_ERROR(Forward(stream, batch, rows, scale, Keep::kAll, saved, nullptr));
  // Nobody needs the output again, but all ranks make the same transfers.
  for (HalfStream& half : stream) COHORT_RETURN_IF_ERROR(half.Arrive(tensor_));
  return absl::OkStatus();
}

// ---- backward ----

void Block::BeginBackward(HalfGradient& half) const {
  if (!half.output.has_value()) half.output.emplace(tensor_.StartGatherRows(half.rows, half.tokens));
}

void Block::BeginBlock(HalfGradient& half) const {
  if (feed_forward_->divided()) BeginBackward(half);
}

absl::Status Block::PassNorm(HalfGradient& half, Saved::Half& saved, Norm norm) const {
  if (!half.input.has_value()) return absl::OkStatus();
  COHORT_ASSIGN_OR_RETURN(const Tensor dx, AwaitRows(half.input));
  Ops& ops = dx.device().ops();
  const bool first = norm == Norm::kAttention;
  Parameter& weight = first ? *norm1_ : *norm2_;
  const Tensor &x = first ? saved.x : saved.x_mid, &rstd = first ? saved.rstd1 : saved.rstd2;
  // In place, adding what went past the layer. The norm's weight comes first: it needs what is overwritten.
  ops.RmsNormWeightGrad(dx, x, rstd, weight.grad);
  ops.RmsNormGrad(dx, x, weight.value, rstd, half.rows, dx);
  half.rows = dx;
  return absl::OkStatus();
}

absl::Status Block::BackwardFeedForward(std::vector<HalfGradient>& gradient, Saved& saved) const {
  if (!feed_forward_->divided()) {
    std::vector<Tensor> rows;
    for (const HalfGradient& half : gradient) rows.push_back(half.rows);
    COHORT_ASSIGN_OR_RETURN(const Tensor dx,
                            feed_forward_->BackwardInput(Join(rows), *saved.halves[0].feed_forward, {}));
    int64_t begin = 0;
    for (HalfGradient& half : gradient) {
      half.input.emplace(dx.Slice(begin, begin + half.rows.dim(0)));
      begin += half.rows.dim(0);
    }
    return absl::OkStatus();
  }
  const size_t last = gradient.size() - 1;
  for (size_t h = last + 1; h-- > 0;) {
    HalfGradient& half = gradient[h];
    BeginBackward(half);
    COHORT_ASSIGN_OR_RETURN(const Tensor dy, AwaitRows(half.output));
    if (h > 0) BeginBackward(gradient[h - 1]);
    HalfGradient* const other = last > 0 && h == 0 ? &gradient[last] : nullptr;
    absl::Status passed;
    const auto pass = [&] {
      passed = PassNorm(*other, saved.halves[last], Norm::kFeedForward);
      if (passed.ok()) BeginBackward(*other);
    };
    const Meanwhile meanwhile = [&] {
      if (other != nullptr && passed.ok() && other->input.has_value() && other->input->Done()) pass();
    };
    COHORT_ASSIGN_OR_RETURN(const Tensor dx,
                            feed_forward_->BackwardInput(dy, *saved.halves[h].feed_forward, meanwhile));
    if (other != nullptr && passed.ok()) pass();
    COHORT_RETURN_IF_ERROR(passed);
    half.input.emplace(tensor_.StartReduceScatterRows(dx));
  }
  return absl::OkStatus();
}

absl::Status Block::StartBackward(std::vector<HalfGradient>& gradient, Saved& saved,
                                  const Block* before) const {
  COHORT_RETURN_IF_ERROR(BackwardFeedForward(gradient, saved));
  const size_t last = gradient.size() - 1;
  for (size_t h = last + 1; h-- > 0;) {
    HalfGradient& half = gradient[h];
    COHORT_RETURN_IF_ERROR(PassNorm(half, saved.halves[h], Norm::kFeedForward));
    BeginBackward(half);
    COHORT_ASSIGN_OR_RETURN(const Tensor dout, AwaitRows(half.output));
    // The other half's next layer: of the first one this block's attention, of the second one the block
    // before.
    absl::Status passed;
    const auto pass = [&] {
      if (h > 0) {
        passed = PassNorm(gradient[h - 1], saved.halves[h - 1], Norm::kFeedForward);
        if (passed.ok()) BeginBackward(gradient[h - 1]);
      } else {
        passed = PassNorm(gradient[last], saved.halves[last], Norm::kAttention);
        if (passed.ok() && before != nullptr) before->BeginBlock(gradient[last]);
      }
    };
    const HalfGradient& other = gradient[last - h];
    const Meanwhile meanwhile = [&] {
      if (last > 0 && passed.ok() && other.input.has_value() && other.input->Done()) pass();
    };
    COHORT_ASSIGN_OR_RETURN(const Tensor dx,
                            attention_.BackwardInput(dout, saved.halves[h].attention, meanwhile));
    if (last > 0 && passed.ok()) pass();
    COHORT_RETURN_IF_ERROR(passed);
    half.input.emplace(tensor_.StartReduceScatterRows(dx));
  }
  return absl::OkStatus();
}

absl::Status Block::FinishBackward(std::vector<HalfGradient>& gradient, Saved& saved,
                                   const Block* before) const {
  for (size_t h = gradient.size(); h-- > 0;) {
    COHORT_RETURN_IF_ERROR(PassNorm(gradient[h], saved.halves[h], Norm::kAttention));
    if (before != nullptr) before->BeginBlock(gradient[h]);
  }
  for (Saved::Half& half : saved.halves) half.x = half.x_mid = half.rstd1 = half.rstd2 = Tensor();
  return absl::OkStatus();
}

absl::Status Block::BackwardInput(std::vector<HalfGradient>& gradient, Saved& saved,
                                  const Block* before) const {
  COHORT_RETURN_IF_ERROR(StartBackward(gradient, saved, before));
  return FinishBackward(gradient, saved, before);
}

absl::Status Block::Backward(std::vector<HalfGradient>& gradient, Saved& saved, const Block* before) const {
  COHORT_RETURN_IF_ERROR(StartBackward(gradient, saved, before));
  HalfGradient& first = gradient[0];
  absl::Status passed;
  Weights(saved, [&] {
    if (!passed.ok() || !first.input.has_value() || !first.input->Done()) return;
    passed = PassNorm(first, saved.halves[0], Norm::kAttention);
    if (passed.ok() && before != nullptr) before->BeginBlock(first);
  });
  COHORT_RETURN_IF_ERROR(passed);
  COHORT_RETURN_IF_ERROR(FinishBackward(gradient, saved, before));
  saved = Saved();
  return absl::OkStatus();
}

void Block::Weights(Saved& saved, const Meanwhile& meanwhile) const {
  for (Saved::Half& half : saved.halves) {
    if (half.feed_forward != nullptr) feed_forward_->BackwardWeight(*half.feed_forward, meanwhile);
    attention_.BackwardWeight(half.attention, meanwhile);
  }
}

void Block::BackwardWeight(Saved& saved) const {
  Weights(saved, {});
  saved = Saved();
}

absl::Status Block::ForwardPaged(Stream& stream, const PagedBatch& batch, const KvPages& pages) const {
  const int64_t tokens = batch.tokens.size();
  const auto sum = [&](const Tensor& y) { return tensor_.ReduceScatterRows(y); };
  Tensor rstd;
  COHORT_ASSIGN_OR_RETURN(const Tensor x,
                          tensor_.GatherRows(stream.AddAndNormalize(*norm1_, eps_, rstd), tokens));
  COHORT_ASSIGN_OR_RETURN(stream.delta, sum(attention_.ForwardPaged(x, batch, pages)));
  Tensor normed = stream.AddAndNormalize(*norm2_, eps_, rstd);
  if (feed_forward_->divided()) {
    COHORT_ASSIGN_OR_RETURN(normed, tensor_.GatherRows(normed, tokens));
  }
  COHORT_ASSIGN_OR_RETURN(stream.delta, feed_forward_->Forward({.x = normed}, nullptr, nullptr));
  if (feed_forward_->divided()) {
    COHORT_ASSIGN_OR_RETURN(stream.delta, sum(stream.delta));
  }
  return absl::OkStatus();
}

}  // namespace cohort::runtime
