#include "parallel/sharding/sharded_bucket.h"

#include <algorithm>
#include <utility>

#include "comm/check.h"
#include "comm/codec/quantized_collectives.h"
#include "runtime/ops/ops.h"

namespace cohort::parallel {

using runtime::Tensor;

namespace {

// A shift of the lattice, whose errors within a block go together, is what QSDP's proof of convergence asks
// of weights (Markov et al., 2023); where the codec's wire has no room for it, each element is
// rounded at random.
comm::Rounding GatherRounding(comm::CodecKind codec) {
  return comm::GetCodec(codec).shifts() ? comm::Rounding::kShift : comm::Rounding::kStochastic;
}

}  // namespace

ShardedBucket::ShardedBucket(const ReplicaGroup& group, std::vector<runtime::ParameterBucket*> parts,
                             runtime::Device& device, DataType compute, MemoryCounter& memory,
                             std::optional<comm::CodecKind> gather, std::optional<comm::CodecKind> reduce,
                             uint64_t number, const LeafOrder* order)
    : group_(group),
      parts_(std::move(parts)),
      device_(device),
      compute_(compute),
      state_(device.state_dtype()),
      memory_(memory),
      gather_codec_(gather),
      reduce_codec_(reduce),
      number_(number),
      order_(order) {
  for (const runtime::ParameterBucket* part : parts_) {
    elements_ += part->size();
    ends_.push_back(elements_);
  }
}

Tensor ShardedBucket::Within(const Tensor& tensor, int outer, int inner) const {
  const ElementRange held = Held(outer), wanted = Held(inner);
  COHORT_CHECK(tensor.size() == held.size(), "a piece of %ld elements holds %ld",
               static_cast<long>(held.size()), static_cast<long>(tensor.size()));
  return tensor.Slice(wanted.begin - held.begin, wanted.end - held.begin);
}

void ShardedBucket::Allocate() {
  const Splits& splits = group_.splits;
  const auto make = [&](int level, DataType dtype, StateKind kind) {
    return memory_.Empty(device_, Held(level).size(), dtype, kind);
  };
  value_ = make(splits.parameters, compute_, StateKind::kParameters);
  if (splits.keeps_secondary()) secondary_ = make(splits.secondary, compute_, StateKind::kParameters);
  gradient_ = make(order_ == nullptr ? splits.gradients : splits.optimizer, state_, StateKind::kGradients);
  if (order_ != nullptr) {
    tree_.emplace(*order_, group_, elements_, device_, memory_, gradient_);
  } else if (group_.finish.moves()) {
    own_gradient_ = make(splits.optimizer, state_, StateKind::kGradients);
  }
  master_ = own_masters() ? make(splits.optimizer, state_, StateKind::kMasters)
                          : Within(value_, splits.parameters, splits.optimizer);
  for (const Tensor& gradient : {gradient_, own_gradient_}) {
    if (gradient.defined()) device_.ops().Fill(gradient, 0);
  }
  Bind();
}

void ShardedBucket::Bind() {
  const Splits& splits = group_.splits;
  const Tensor value = splits.parameters == 1 ? value_ : gathering_ ? Tensor() : whole_;
  std::vector<Tensor> gradients = {splits.gradients == 1 ? gradient_ : whole_gradient_};
  if (tree_) gradients = tree_->gradients();
  const Tensor master = splits.optimizer == 1 ? master_ : Tensor();
  int64_t begin = 0;
  for (size_t i = 0; i < parts_.size(); ++i) {
    const auto part = [&](const Tensor& flat) {
      return flat.defined() ? flat.Slice(begin, ends_[i]) : Tensor();
    };
    parts_[i]->value = part(value);
    parts_[i]->master = part(master);
    parts_[i]->grad = gradients.empty() ? Tensor() : part(gradients[0]);
    parts_[i]->other_grads.clear();
    for (size_t source = 1; source < gradients.size(); ++source) {
      parts_[i]->other_grads.push_back(part(gradients[source]));
    }
    parts_[i]->Bind();
    begin = ends_[i];
  }
}

void ShardedBucket::BeginWhole() {
  if (group_.splits.optimizer == 1) return;  // they are
  const Tensor all = memory_.Empty(device_, elements_, state_, StateKind::kMasters);
  int64_t begin = 0;
  for (size_t i = 0; i < parts_.size(); ++i) {
    parts_[i]->value = parts_[i]->master = all.Slice(begin, ends_[i]);
    parts_[i]->Bind();
    begin = ends_[i];
  }
  whole_ = all;
}

void ShardedBucket::EndWhole() {
  if (group_.splits.optimizer == 1) return;
  const auto part = [&](int level) { return whole_.Slice(Held(level).begin, Held(level).end); };
  device_.ops().Copy(part(group_.splits.parameters), value_);
  if (own_masters()) device_.ops().Copy(part(group_.splits.optimizer), master_);
  device_.Synchronize();
  whole_ = Tensor();
  secondary_valid_ = false;
  Bind();
}

void ShardedBucket::BeginGather() {
  if (!group_.gather.moves()) return;
  COHORT_CHECK(!whole_.defined(), "parameters are gathered that are whole");
  whole_ = memory_.Empty(device_, elements_, compute_, StateKind::kParameters);
  gathering_ = true;
  gather_ = comm::Work();
}

void ShardedBucket::StartGather() {
  if (!gathering_) return;
  const bool refill = secondary_valid_;
  const ShardMove& move = refill ? group_.refill : group_.gather;
  const Tensor& source = refill ? secondary_ : value_;
  const std::vector<size_t> parts = PartsOf(move);
  device_.Synchronize();
  if (gather_codec_ && !refill) {
    gather_ = comm::QuantizedAllGather(*move.ranks, source.raw(), whole_.raw(), parts, compute_,
                                       {.codec = *gather_codec_,
                                        .rounding = GatherRounding(*gather_codec_),
                                        .seed = 2 * number_,
                                        .step = encoded_++});
  } else {
    gather_ = move.ranks->AllGather(source.raw(), whole_.raw(), parts, compute_);
  }
}

absl::Status ShardedBucket::WaitGather() {
  if (!gathering_) return absl::OkStatus();
  const absl::Status status = gather_.Wait();
  gathering_ = false;
  COHORT_RETURN_IF_ERROR(status);
  if (secondary_.defined() && !secondary_valid_) {
    const ElementRange held = Held(group_.splits.secondary);
    device_.ops().Copy(whole_.Slice(held.begin, held.end), secondary_);
    secondary_valid_ = true;
  }
  Bind();
  return absl::OkStatus();
}

void ShardedBucket::FreeWhole() {
  if (!whole_.defined()) return;
  if (gathering_) gather_.Wait().IgnoreError();
  gathering_ = false;
  device_.Synchronize();
  whole_ = Tensor();
  Bind();
}

void ShardedBucket::StartPublish() {
  secondary_valid_ = false;
  const ShardMove& move = group_.publish;
  if (!move.moves()) return;
  device_.Synchronize();
  // Never encoded: these are the parameters themselves.
  publish_ = move.ranks->AllGather(Within(value_, move.coarse, move.fine).raw(), value_.raw(), PartsOf(move),
                                   compute_);
}

absl::Status ShardedBucket::WaitPublished() { return std::exchange(publish_, comm::Work()).Wait(); }

void ShardedBucket::BeginStep() {
  if (tree_) {
    tree_->BeginStep();
    return Bind();
  }
  accumulated_ = false;
  if (group_.splits.gradients == 1) device_.ops().Fill(gradient_, 0);
}

void ShardedBucket::EnterMicroBatch(int micro_batch) {
  tree_->Enter(micro_batch);
  if (tree_->open()) BeginGradient();
}

void ShardedBucket::CloseMicroBatch() {
  tree_->Close();
  Bind();
}

void ShardedBucket::BeginGradient() {
  if (tree_) {
    tree_->Open();
    return Bind();
  }
  if (!group_.reduce.moves() || whole_gradient_.defined()) return;
  whole_gradient_ = memory_.Empty(device_, elements_, state_, StateKind::kGradients);
  device_.ops().Fill(whole_gradient_, 0);
  // What earlier micro-batches left in this rank's shard goes through the sum as a part of its own contribution.
  if (accumulated_) {
    const ElementRange held = Held(group_.splits.gradients);
    device_.ops().Copy(gradient_, whole_gradient_.Slice(held.begin, held.end));
  }
  Bind();
}

comm::Work ShardedBucket::ReduceScatter(const ShardMove& move, const Tensor& from, const Tensor& to) {
  if (!reduce_codec_) return move.ranks->ReduceScatter(from.raw(), to.raw(), PartsOf(move), state_);
  return comm::QuantizedReduceScatter(*move.ranks, from.raw(), to.raw(), PartsOf(move), state_,
                                      {.codec = *reduce_codec_,
                                       .rounding = comm::Rounding::kStochastic,
                                       .seed = 2 * number_ + 1,
                                       .step = encoded_++});
}

comm::Work ShardedBucket::StartSum(Sum sum) {
  device_.Synchronize();
  switch (sum) {
    case kMicroBatch:
      if (tree_) return tree_->StartExchange();
      if (!group_.reduce.moves()) return comm::Work();
      accumulated_ = true;
      return ReduceScatter(group_.reduce, whole_gradient_, gradient_);
    case kToOptimizer:
      if (tree_) {
        tree_->Combine();
        return comm::Work();
      }
      return group_.finish.moves() ? ReduceScatter(group_.finish, gradient_, own_gradient_) : comm::Work();
    case kOverCopies: {
      if (tree_) return tree_->StartGather();
      if (!group_.sum.moves()) return comm::Work();
      const Tensor& mine = gradient();
      const auto size = static_cast<size_t>(mine.size());
      if (!reduce_codec_) return group_.sum.ranks->AllReduce(mine.raw(), mine.raw(), size, state_);
      return comm::QuantizedAllReduce(*group_.sum.ranks, mine.raw(), mine.raw(), size, state_,
                                      {.codec = *reduce_codec_,
                                       .rounding = comm::Rounding::kStochastic,
                                       .seed = 2 * number_ + 1,
                                       .step = encoded_++});
    }
    case kDone:
      break;
  }
  return comm::Work();
}

void ShardedBucket::EndGradient() {
  if (tree_) return tree_->Release();
  if (!whole_gradient_.defined()) return;
  whole_gradient_ = Tensor();
  Bind();
}

std::vector<runtime::OptimizerSlice> ShardedBucket::Slices() const {
  const Splits& splits = group_.splits;
  const ElementRange held = optimised();
  const Tensor value = Within(value_, splits.parameters, splits.optimizer);
  std::vector<runtime::OptimizerSlice> slices;
  int64_t begin = 0;
  for (size_t i = 0; i < parts_.size(); ++i) {
    const int64_t first = std::clamp(held.begin, begin, ends_[i]),
                  last = std::clamp(held.end, first, ends_[i]);
    // Of an empty slice any place will do.
    const int64_t at = std::clamp(first - held.begin, int64_t{0}, held.size()), size = last - first;
    const auto part = [&](const Tensor& flat) { return flat.Slice(at, at + size); };
    slices.push_back({.name = {},
                      .master = part(master_),
                      .grad = part(gradient()),
                      .value = own_masters() ? part(value) : Tensor(),
                      .decay = parts_[i]->decay});
    begin = ends_[i];
  }
  return slices;
}

}  // namespace cohort::parallel
