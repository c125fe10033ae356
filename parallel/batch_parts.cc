#include "parallel/batch_parts.h"

#include <utility>
#include <vector>

#include "comm/check.h"

namespace cohort::parallel {

using runtime::Tensor;
using runtime::TokenBatch;

namespace {

class SequenceSums final : public runtime::SequenceGroup {
 public:
  SequenceSums(std::shared_ptr<comm::Communicator> ranks, Tensor lengths)
      : ranks_(std::move(ranks)), lengths_(std::move(lengths)) {}

  absl::Status Sum(const Tensor& x) override {
    x.device().Synchronize();
    return ranks_->AllReduce(x.raw(), x.raw(), static_cast<size_t>(x.size()), x.dtype()).Wait();
  }
  bool counts() const override { return ranks_->rank() == 0; }
  const Tensor& lengths() const override { return lengths_; }

 private:
  const std::shared_ptr<comm::Communicator> ranks_;
  const Tensor lengths_;
};

// The halves, one after another, as one batch.
TokenBatch JoinHalves(std::vector<TokenBatch> halves) {
  runtime::Device& device = halves[0].tokens.device();
  const auto join = [&](Tensor TokenBatch::*values) {
    std::vector<int32_t> all;
    for (const TokenBatch& half : halves) {
      for (const double value : ToHost(half.*values)) all.push_back(static_cast<int32_t>(value));
    }
    return Tensor::FromHost(device, {static_cast<int64_t>(all.size())}, absl::MakeConstSpan(all));
  };
  TokenBatch batch;
  batch.tokens = join(&TokenBatch::tokens);
  batch.targets = join(&TokenBatch::targets);
  batch.positions = join(&TokenBatch::positions);
  batch.host_offsets = halves[0].host_offsets;
  for (size_t s = 1; s < halves[1].host_offsets.size(); ++s) {
    batch.host_offsets.push_back(halves[0].host_offsets.back() + halves[1].host_offsets[s]);
  }
  batch.offsets = Tensor::FromHost(device, {static_cast<int64_t>(batch.host_offsets.size())},
                                   absl::MakeConstSpan(batch.host_offsets));
  batch.halves = std::move(halves);
  return batch;
}

}  // namespace

absl::StatusOr<TokenBatch> BatchParts::OfContext(const TokenBatch& whole) const {
  if (groups_.context->size() == 1) return whole;
  std::vector<int64_t> lengths;
  for (size_t s = 1; s < whole.host_offsets.size(); ++s) {
    lengths.push_back(whole.host_offsets[s] - whole.host_offsets[s - 1]);
  }
  const ContextGroup group = WholeGroup(groups_.context);
  COHORT_ASSIGN_OR_RETURN(const TokenSplit split, TokenSplit::Create(context_.split, group.size(), lengths));
  TokenBatch batch = BatchOfRank(whole, split, group.rank);
  COHORT_ASSIGN_OR_RETURN(batch.attention, MakeContextAttention(group, split, context_.ways, device_));
  return batch;
}

absl::StatusOr<TokenBatch> BatchParts::Of(const TokenBatch& whole) const {
  if (groups_.sequences->size() == 1) return whole;
  int64_t cut = 0;
  if (split_.has_value() && groups_.tensor->size() > 1) {
    SplitRule rule = *split_;
    const int context = groups_.context->size();
    rule.whole_sequences = rule.whole_sequences || context > 1;
    rule.least *= context;  // of a rank's tokens
    cut = CutOf(whole.host_offsets, rule);
  }
  TokenBatch batch;
  if (cut == 0) {
    COHORT_ASSIGN_OR_RETURN(batch, OfContext(whole));
  } else {
    std::vector<TokenBatch> halves = Halves(whole, cut);
    if (groups_.context->size() == 1) {
      batch = whole;
      batch.halves = std::move(halves);
    } else {
      for (TokenBatch& half : halves) {
        COHORT_ASSIGN_OR_RETURN(half, OfContext(half));
      }
      batch = JoinHalves(std::move(halves));
    }
  }
  std::vector<int32_t> lengths;
  for (size_t s = 1; s < whole.host_offsets.size(); ++s) {
    lengths.push_back(whole.host_offsets[s] - whole.host_offsets[s - 1]);
  }
  batch.sequences = std::make_shared<SequenceSums>(
      groups_.sequences,
      Tensor::FromHost(device_, {static_cast<int64_t>(lengths.size())}, absl::MakeConstSpan(lengths)));
  return batch;
}

}  // namespace cohort::parallel
