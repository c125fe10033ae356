#include "parallel/batch_parts.h"

#include <utility>
#include <vector>

#include "comm/check.h"
#include "parallel/batch_source.h"
#include "parallel/sequence/policy.h"
#include "runtime/metrics/waited.h"
#include "runtime/ops/ops.h"

namespace cohort::parallel {

using runtime::Tensor;
using runtime::TokenBatch;

namespace {

// Of a group that has a communicator.
class SequenceSums final : public runtime::SequenceGroup {
 public:
  SequenceSums(std::shared_ptr<comm::Communicator> ranks, Tensor lengths)
      : ranks_(std::move(ranks)), lengths_(std::move(lengths)) {}

  absl::Status Sum(const Tensor& x) override {
    x.device().Synchronize();
    const runtime::WaitScope waits("wait for sums");
    return ranks_->AllReduce(x.raw(), x.raw(), static_cast<size_t>(x.size()), x.dtype()).Wait();
  }
  bool counts() const override { return ranks_->rank() == 0; }
  const Tensor& lengths() const override { return lengths_; }

 private:
  const std::shared_ptr<comm::Communicator> ranks_;
  const Tensor lengths_;
};

// Of a group that is there for one micro-batch: its first member adds up, in the order of ranks.
class MemberSums final : public runtime::SequenceGroup {
 public:
  MemberSums(ContextGroup group, Tensor lengths) : group_(std::move(group)), lengths_(std::move(lengths)) {}

  absl::Status Sum(const Tensor& x) override {
    x.device().Synchronize();
    const auto size = static_cast<size_t>(x.size());
    comm::Communicator& comm = *group_.comm;
    const auto send = [&](int member) {
      return comm.Send(x.raw(), size, x.dtype(), group_.members[member], policy::kSumsTag);
    };
    const auto receive = [&](int member, const Tensor& into) {
      return comm.Recv(into.raw(), size, into.dtype(), group_.members[member], policy::kSumsTag);
    };
    const runtime::WaitScope waits("wait for sums");
    if (group_.rank > 0) {
      COHORT_RETURN_IF_ERROR(send(0).Wait());
      return receive(0, x).Wait();
    }
    const Tensor part = Tensor::Empty(x.device(), x.shape(), x.dtype());
    for (int member = 1; member < group_.size(); ++member) {
      COHORT_RETURN_IF_ERROR(receive(member, part).Wait());
      x.device().ops().Accumulate(part, 1, x);
      x.device().Synchronize();
    }
    std::vector<comm::Work> works;
    for (int member = 1; member < group_.size(); ++member) works.push_back(send(member));
    return WaitForAll(works);
  }
  bool counts() const override { return group_.rank == 0; }
  const Tensor& lengths() const override { return lengths_; }

 private:
  const ContextGroup group_;
  const Tensor lengths_;
};

Tensor LengthTensor(const std::vector<int64_t>& lengths, runtime::Device& device) {
  const std::vector<int32_t> narrow(lengths.begin(), lengths.end());
  return Tensor::FromHost(device, {static_cast<int64_t>(narrow.size())}, absl::MakeConstSpan(narrow));
}

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
  const ContextGroup group = WholeGroup(groups_.over_device.context);
  COHORT_ASSIGN_OR_RETURN(const TokenSplit split,
                          TokenSplit::Create(context_.split, group.size(), SequenceLengths(whole)));
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
  batch.sequences = std::make_shared<SequenceSums>(groups_.over_device.sequences,
                                                   LengthTensor(SequenceLengths(whole), device_));
  return batch;
}

absl::StatusOr<runtime::TokenBatch> BatchParts::Of(const runtime::TokenBatch& whole,
                                                   const HybridMicroBatch& hybrid) const {
  if (hybrid.ranks == 1) return Of(whole);
  const std::vector<int64_t> lengths = SequenceLengths(whole);
  // Along kStageAxes the tensor axis varies fastest, and the context axis has one rank.
  const int tensor = groups_.tensor->size(), mine = groups_.hybrid->rank() / tensor - hybrid.first_rank;
  COHORT_CHECK(mine >= 0 && mine < hybrid.ranks, "rank %d of a hybrid micro-batch of %d", mine, hybrid.ranks);
  ContextGroup all{groups_.over_device.hybrid, {}, mine * tensor + groups_.tensor->rank()};
  for (int member = 0; member < hybrid.ranks * tensor; ++member) {
    all.members.push_back(hybrid.first_rank * tensor + member);
  }
  const ContextGroup group = all.Part(groups_.tensor->rank(), hybrid.ranks, tensor);
  ContextWays ways = context_.ways;
  if (hybrid.ranks % ways.forward.head_parts != 0) ways.forward.head_parts = ways.backward.head_parts = 1;
  COHORT_ASSIGN_OR_RETURN(const TokenSplit split, TokenSplit::Create(context_.split, hybrid.ranks, lengths));
  runtime::TokenBatch batch = BatchOfRank(whole, split, group.rank);
  COHORT_ASSIGN_OR_RETURN(batch.attention, MakeContextAttention(group, split, ways, device_));
  batch.sequences = std::make_shared<MemberSums>(std::move(all), LengthTensor(lengths, device_));
  return batch;
}

}  // namespace cohort::parallel
