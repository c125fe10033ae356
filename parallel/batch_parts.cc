#include "parallel/batch_parts.h"

#include <utility>
#include <vector>

#include "comm/check.h"

namespace cohort::parallel {
namespace {

class SequenceSums final : public runtime::SequenceGroup {
 public:
  SequenceSums(std::shared_ptr<comm::Communicator> ranks, runtime::Tensor lengths)
      : ranks_(std::move(ranks)), lengths_(std::move(lengths)) {}

  absl::Status Sum(const runtime::Tensor& x) override {
    x.device().Synchronize();
    return ranks_->AllReduce(x.raw(), x.raw(), static_cast<size_t>(x.size()), x.dtype()).Wait();
  }
  bool counts() const override { return ranks_->rank() == 0; }
  const runtime::Tensor& lengths() const override { return lengths_; }

 private:
  const std::shared_ptr<comm::Communicator> ranks_;
  const runtime::Tensor lengths_;
};

}  // namespace

absl::StatusOr<runtime::TokenBatch> BatchParts::Of(const runtime::TokenBatch& whole) const {
  if (groups_.sequences->size() == 1) return whole;
  std::vector<int64_t> lengths;
  std::vector<int32_t> narrow;
  for (size_t s = 1; s < whole.host_offsets.size(); ++s) {
    lengths.push_back(whole.host_offsets[s] - whole.host_offsets[s - 1]);
    narrow.push_back(static_cast<int32_t>(lengths.back()));
  }
  runtime::TokenBatch batch = whole;
  if (groups_.context->size() > 1) {
    const ContextGroup group = WholeGroup(groups_.context);
    COHORT_ASSIGN_OR_RETURN(const TokenSplit split,
                            TokenSplit::Create(context_.split, group.size(), lengths));
    batch = BatchOfRank(whole, split, group.rank);
    COHORT_ASSIGN_OR_RETURN(batch.attention, MakeContextAttention(group, split, context_.ways, device_));
  }
  batch.sequences = std::make_shared<SequenceSums>(
      groups_.sequences,
      runtime::Tensor::FromHost(device_, {static_cast<int64_t>(narrow.size())}, absl::MakeConstSpan(narrow)));
  return batch;
}

}  // namespace cohort::parallel
