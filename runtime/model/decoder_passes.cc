// The passes of training: forward, with the loss where the head is here, and backward, whole or in its two halves.
#include <utility>

#include "absl/types/span.h"
#include "runtime/metrics/chrome_trace.h"
#include "runtime/model/decoder_impl.h"

namespace cohort::runtime {

Tensor DecoderImpl::EmbeddingRows(const Tensor& tokens) const {
  if (tensor().size() == 1) return tokens;
  const RowRange here = RowsOf(config_.vocab_size, tensor().rank(), tensor().size());
  std::vector<int32_t> rows;
  for (const double token : ToHost(tokens)) {
    const auto word = static_cast<int64_t>(token);
    rows.push_back(word >= here.begin && word < here.end ? static_cast<int32_t>(word - here.begin) : -1);
  }
  return Tensor::FromHost(device_, tokens.shape(), absl::MakeConstSpan(rows));
}

absl::StatusOr<RowsInFlight> DecoderImpl::Embed(const Tensor& tokens) {
  const Tensor found = Tensor::Empty(device_, {tokens.size(), config_.hidden_size}, options_.compute);
  device_.ops().GatherRows(embedding_->value, EmbeddingRows(tokens), found);
  return tensor().StartReduceScatterRows(found);
}

absl::Status DecoderImpl::EmbeddingBackward(const std::vector<HalfGradient>& gradient,
                                            const StreamRows& rows) {
  if (TiedGroup() != 0) COHORT_RETURN_IF_ERROR(Call(hooks_.before_backward, 0));
  for (size_t h = 0; h < gradient.size(); ++h) {
    const Tensor& tokens = rows.halves[h].batch.tokens;
    COHORT_ASSIGN_OR_RETURN(const Tensor all, tensor().GatherRows(gradient[h].rows, tokens.size()));
    device_.ops().EmbeddingGrad(all, EmbeddingRows(tokens), embedding_->grad);
  }
  return Call(hooks_.after_backward, 0);
}

absl::Status DecoderImpl::HeadUses(const Hook& hook) {
  if (TiedGroup() >= 0) COHORT_RETURN_IF_ERROR(Call(hook, TiedGroup()));
  return Call(hook, HeadGroup());
}

absl::StatusOr<std::vector<HalfStream>> DecoderImpl::ForwardBlocks(const TokenBatch& batch,
                                                                   const StreamRows& rows,
                                                                   const LossScale& scale, const Tensor& x,
                                                                   PartSaved* saved, LossSums* sums) {
  COHORT_RETURN_IF_ERROR(CheckBatch(batch));
  std::vector<HalfStream> stream;
  if (options_.part.embedding) {
    COHORT_RETURN_IF_ERROR(Call(hooks_.before_forward, 0));
    std::vector<RowsInFlight> found;
    for (const StreamRows::Half& half : rows.halves) {
      COHORT_ASSIGN_OR_RETURN(RowsInFlight embedded, Embed(half.batch.tokens));
      found.push_back(std::move(embedded));
    }
    for (size_t h = 0; h < found.size(); ++h) {
      COHORT_ASSIGN_OR_RETURN(const Tensor base, found[h].Arrive());
      stream.emplace_back(base, rows.halves[h].batch.num_tokens());
    }
    COHORT_RETURN_IF_ERROR(Call(hooks_.after_forward, 0));
  } else {
    COHORT_CHECK(x.dim(0) == rows.halves.back().local.end, "%s comes in for %d rows", x.DebugString().c_str(),
                 static_cast<int>(rows.halves.back().local.end));
    for (const StreamRows::Half& half : rows.halves) {
      stream.emplace_back(x.Slice(half.local.begin, half.local.end), half.batch.num_tokens());
    }
  }
  if (saved != nullptr) saved->blocks.resize(blocks_.size());
  Block::Saved nothing;
  const Block::Keep keep = saved == nullptr     ? Block::Keep::kNothing
                           : options_.recompute ? Block::Keep::kInput
                                                : Block::Keep::kAll;
  for (size_t i = 0; i < blocks_.size(); ++i) {
    const TraceScope trace("block forward");
    COHORT_RETURN_IF_ERROR(Call(hooks_.before_forward, BlockGroup(i)));
    COHORT_RETURN_IF_ERROR(blocks_[i]->Forward(stream, batch, rows, scale, keep,
                                               saved == nullptr ? nothing : saved->blocks[i], sums));
    COHORT_RETURN_IF_ERROR(Call(hooks_.after_forward, BlockGroup(i)));
  }
  for (HalfStream& half : stream) half.Send(tensor());
  for (HalfStream& half : stream) COHORT_RETURN_IF_ERROR(half.Arrive(tensor()));
  return stream;
}

absl::StatusOr<Tensor> DecoderImpl::Forward(const TokenBatch& batch, const LossScale& scale, const Tensor& x,
                                            std::unique_ptr<Saved>* saved, LossSums* sums) {
  COHORT_CHECK(saved == nullptr || options_.trainable, "a model made for inference is asked for gradients");
  std::unique_ptr<PartSaved> kept = saved == nullptr ? nullptr : std::make_unique<PartSaved>();
  const StreamRows rows = RowsOfBatch(batch, tensor());
  COHORT_ASSIGN_OR_RETURN(std::vector<HalfStream> stream,
                          ForwardBlocks(batch, rows, scale, x, kept.get(), sums));
  Tensor y;
  if (!options_.part.head) {
    std::vector<Tensor> halves;
    for (HalfStream& half : stream) {
      const Tensor &base = half.stream.base, &delta = half.stream.delta;
      if (delta.defined()) device_.ops().Add(delta, base, delta);
      halves.push_back(delta.defined() ? delta : base);
    }
    y = Join(halves);
  } else if (kept != nullptr) {
    COHORT_RETURN_IF_ERROR(Call(hooks_.before_forward, HeadGroup()));
    COHORT_RETURN_IF_ERROR(HeadUses(hooks_.before_backward));
    const TraceScope trace("head");
    for (size_t h = 0; h < stream.size(); ++h) {
      COHORT_ASSIGN_OR_RETURN(const Tensor gradient,
                              head_->ForwardBackward(std::exchange(stream[h].stream, {}),
                                                     rows.halves[h].batch.targets, 1 / scale.tokens, *sums));
      kept->gradient.emplace_back(gradient, stream[h].tokens);
    }
    COHORT_RETURN_IF_ERROR(Call(hooks_.after_backward, HeadGroup()));
    if (options_.part.head_copy) COHORT_RETURN_IF_ERROR(Call(hooks_.after_backward, TiedGroup()));
  } else {
    COHORT_RETURN_IF_ERROR(WithHead([&] {
      absl::Status status;
      for (size_t h = 0; h < stream.size() && status.ok(); ++h) {
        status = head_->Evaluate(std::exchange(stream[h].stream, {}), rows.halves[h].batch.targets, *sums);
      }
      return status;
    }));
  }
  if (saved != nullptr) {
    kept->batch = batch, kept->rows = rows, kept->scale = scale;
    *saved = std::move(kept);
  }
  return y;
}

absl::StatusOr<Tensor> DecoderImpl::BackwardBlocks(const Tensor& dy, PartSaved& saved, bool weights) {
  std::vector<HalfGradient> gradient = std::exchange(saved.gradient, {});
  if (!options_.part.head) {
    for (const StreamRows::Half& half : saved.rows.halves) {
      gradient.emplace_back(dy.Slice(half.local.begin, half.local.end), half.batch.num_tokens());
    }
  }
  for (size_t i = blocks_.size(); i-- > 0;) {
    const TraceScope trace(weights ? "block backward" : "block backward input");
    const Block* before = i > 0 ? blocks_[i - 1].get() : nullptr;
    Block::Saved& kept = saved.blocks[i];
    COHORT_RETURN_IF_ERROR(Call(hooks_.before_backward, BlockGroup(i)));
    if (options_.recompute) {
      COHORT_RETURN_IF_ERROR(blocks_[i]->Recompute(saved.batch, saved.rows, saved.scale, kept));
    }
    COHORT_RETURN_IF_ERROR(weights ? blocks_[i]->Backward(gradient, kept, before)
                                   : blocks_[i]->BackwardInput(gradient, kept, before));
    COHORT_RETURN_IF_ERROR(
        Call(weights ? hooks_.after_backward : hooks_.after_backward_input, BlockGroup(i)));
  }
  if (options_.part.embedding) {
    COHORT_RETURN_IF_ERROR(EmbeddingBackward(gradient, saved.rows));
    return Tensor();
  }
  std::vector<Tensor> halves;
  for (const HalfGradient& half : gradient) halves.push_back(half.rows);
  return Join(halves);
}

absl::StatusOr<Tensor> DecoderImpl::Backward(const Tensor& dy, Saved& saved) {
  return BackwardBlocks(dy, static_cast<PartSaved&>(saved), /*weights=*/true);
}

absl::StatusOr<Tensor> DecoderImpl::BackwardInput(const Tensor& dy, Saved& saved) {
  return BackwardBlocks(dy, static_cast<PartSaved&>(saved), /*weights=*/false);
}

absl::Status DecoderImpl::BackwardWeight(Saved& saved) {
  auto& kept = static_cast<PartSaved&>(saved);
  for (size_t i = blocks_.size(); i-- > 0;) {
    const TraceScope trace("block backward weight");
    blocks_[i]->BackwardWeight(kept.blocks[i]);
    COHORT_RETURN_IF_ERROR(Call(hooks_.after_backward, BlockGroup(i)));
  }
  return absl::OkStatus();
}

absl::StatusOr<LossSums> DecoderImpl::ForwardBackward(const TokenBatch& batch, const LossScale& scale) {
  LossSums sums;
  std::unique_ptr<Saved> saved;
  COHORT_RETURN_IF_ERROR(Forward(batch, scale, Tensor(), &saved, &sums).status());
  COHORT_RETURN_IF_ERROR(Backward(Tensor(), *saved).status());
  return sums;
}

absl::StatusOr<LossSums> DecoderImpl::Evaluate(const TokenBatch& batch) {
  LossSums sums;
  COHORT_RETURN_IF_ERROR(Forward(batch, LossScale(), Tensor(), nullptr, &sums).status());
  return sums;
}

}  // namespace cohort::runtime
