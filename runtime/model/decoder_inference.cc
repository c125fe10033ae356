// Logits, of whole sequences and from a paged cache.
#include <algorithm>
#include <utility>

#include "runtime/model/decoder_impl.h"

namespace cohort::runtime {

absl::StatusOr<Tensor> DecoderImpl::Logits(const TokenBatch& batch) {
  const StreamRows rows = RowsOfBatch(batch, tensor());
  COHORT_ASSIGN_OR_RETURN(std::vector<HalfStream> stream,
                          ForwardBlocks(batch, rows, LossScale(), Tensor(), nullptr, nullptr));
  std::vector<Tensor> halves;
  COHORT_RETURN_IF_ERROR(WithHead([&] {
    for (HalfStream& half : stream) halves.push_back(head_->Logits(std::exchange(half.stream, {})));
    return absl::OkStatus();
  }));
  return Join(halves);
}

absl::StatusOr<Tensor> DecoderImpl::ForwardPaged(const PagedBatch& batch, KvCache& cache) {
  COHORT_CHECK(cache.blocks.size() == blocks_.size(), "a cache of %zu blocks for a model of %zu",
               cache.blocks.size(), blocks_.size());
  Stream stream;
  COHORT_RETURN_IF_ERROR(Call(hooks_.before_forward, 0));
  COHORT_ASSIGN_OR_RETURN(RowsInFlight embedded, Embed(batch.tokens));
  COHORT_ASSIGN_OR_RETURN(stream.base, embedded.Arrive());
  COHORT_RETURN_IF_ERROR(Call(hooks_.after_forward, 0));
  for (size_t i = 0; i < blocks_.size(); ++i) {
    COHORT_RETURN_IF_ERROR(Call(hooks_.before_forward, BlockGroup(i)));
    COHORT_RETURN_IF_ERROR(blocks_[i]->ForwardPaged(stream, batch, cache.blocks[i]));
    COHORT_RETURN_IF_ERROR(Call(hooks_.after_forward, BlockGroup(i)));
  }
  const auto wanted = [&](const Tensor& rows) {
    const Tensor picked =
        Tensor::Empty(device_, {batch.logit_rows.size(), config_.hidden_size}, options_.compute);
    device_.ops().GatherRows(rows, batch.logit_rows, picked);
    return picked;
  };
  const Stream picked{wanted(stream.base), wanted(stream.delta)};
  Tensor logits;
  COHORT_RETURN_IF_ERROR(WithHead([&] {
    logits = head_->Logits(picked);
    return absl::OkStatus();
  }));
  return logits;
}

bool DecoderImpl::paged_is_recordable() const {
  const bool hooks = hooks_.before_forward != nullptr || hooks_.after_forward != nullptr;
  return tensor().size() == 1 && !hooks && std::all_of(blocks_.begin(), blocks_.end(), [](const auto& block) {
           return block->feed_forward().only_enqueues();
         });
}

KvCache DecoderImpl::MakeCache(int64_t pages, int64_t page_size) {
  const Shape shape = {pages, config_.num_key_value_heads / tensor().size(), page_size, config_.head_dim};
  KvCache cache;
  for (size_t i = 0; i < blocks_.size(); ++i) {
    cache.blocks.push_back({.keys = Tensor::Zeros(device_, shape, options_.compute),
                            .values = Tensor::Zeros(device_, shape, options_.compute)});
  }
  return cache;
}

}  // namespace cohort::runtime
