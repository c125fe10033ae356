#include "parallel/sequence/ring_core.h"

#include <time.h>

#include <algorithm>
#include <map>
#include <optional>
#include <tuple>
#include <utility>

#include "comm/check.h"
#include "parallel/sequence/parcel.h"
#include "parallel/sequence/policy.h"
#include "runtime/metrics/waited.h"
#include "runtime/ops/ops.h"

namespace cohort::parallel {

using runtime::Device;
using runtime::Shape;
using runtime::Tensor;

namespace {

// Adds the time of a scope, by one of the system's clocks, to a sum that may be null.
class Stopwatch {
 public:
  Stopwatch(clockid_t clock, double* sum) : clock_(clock), sum_(sum), begin_(Now()) {}
  ~Stopwatch() {
    if (sum_ != nullptr) *sum_ += Now() - begin_;
  }
  Stopwatch(const Stopwatch&) = delete;
  Stopwatch& operator=(const Stopwatch&) = delete;

 private:
  double Now() const {
    timespec now{};
    if (sum_ != nullptr) clock_gettime(clock_, &now);
    return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
  }
  const clockid_t clock_;
  double* const sum_;
  const double begin_;
};

using ItemKey = std::tuple<Item, int, int>;
ItemKey ItemKeyOf(const Transfer& transfer) { return {transfer.item, transfer.block, transfer.keys}; }

using SavedTensors = runtime::AttentionCore::SavedTensors;

// One pass of one rank.
class RingWalk {
 public:
  // y, lse: forward: written; backward: read. dy undefined in the forward. dq, dk, dv: state, added to.
  RingWalk(const RingParts& core, const AttentionPlan& plan, const SavedTensors& saved, Tensor dy, Tensor dq,
           Tensor dk, Tensor dv)
      : core_(core),
        plan_(plan),
        device_(saved.q.device()),
        own_(core.group.rank),
        steps_(plan.steps[own_]),
        saved_(saved),
        dy_(std::move(dy)),
        dq_(std::move(dq)),
        dk_(std::move(dk)),
        dv_(std::move(dv)),
        heads_(saved.q.dim(1)),
        kv_heads_(saved.k.dim(1)),
        width_(saved.q.dim(2)) {}

  // After an error nothing is under way any more either.
  absl::Status Run() {
    absl::Status status;
    if (!forward()) {
      const Stopwatch watch = Computing();
      delta_ = Tensor::Empty(device_, saved_.lse.shape(), state());
      device_.ops().AttentionDelta(dy_, saved_.y, delta_);
    }
    for (size_t i = 0; status.ok() && i < steps_.size(); ++i) status = Step(i);
    const runtime::WaitScope waits("wait for a context");
    for (const Flight& flight : flights_) status.Update(flight.work.Wait());
    return status;
  }

 private:
  bool forward() const { return plan_.pass == Pass::kForward; }
  DataType state() const { return device_.state_dtype(); }
  // Processor time, so that ranks that share cores can be compared.
  Stopwatch Computing() const {
    return {CLOCK_THREAD_CPUTIME_ID, core_.seconds == nullptr ? nullptr : &core_.seconds->compute};
  }
  Stopwatch Waiting() const {
    return {CLOCK_MONOTONIC, core_.seconds == nullptr ? nullptr : &core_.seconds->waiting};
  }

  int Tag(const Transfer& transfer) const {
    const int n = plan_.ranks;
    return policy::kRingTag + (static_cast<int>(transfer.item) * n + transfer.block) * (n + 1) +
           transfer.keys + 1;
  }

  Parcel Empty(Item item, int block) const {
    const int64_t t = core_.tokens(block);
    const Shape q = {t, heads_, width_}, kv = {t, kv_heads_, width_}, lse = {heads_, t};
    const DataType element = saved_.q.dtype();
    switch (item) {
      case Item::kKeyValue:
        return MakeParcel(device_, {{kv, element}, {kv, element}});
      case Item::kQuery:
        if (forward()) return MakeParcel(device_, {{q, element}});
        return MakeParcel(device_, {{q, element}, {q, element}, {lse, state()}, {lse, state()}});
      case Item::kOutput:
        return MakeParcel(device_, {{q, element}, {lse, state()}});
      case Item::kKeyValueGrad:
        return MakeParcel(device_, {{kv, state()}, {kv, state()}});
      case Item::kQueryGrad:
        return MakeParcel(device_, {{q, state()}});
      case Item::kHeads:
      case Item::kTokens:
        break;
    }
    COHORT_CHECK(false, "a ring that exchanges heads");
    return {};
  }
  Parcel Zeros(Item item, int block) const {
    Parcel parcel = Empty(item, block);
    for (const Tensor& tensor : parcel.tensors) device_.ops().Fill(tensor, 0);
    return parcel;
  }

  // This rank's own block, packed when it is first sent.
  const Parcel& Own(Item item) {
    Parcel& parcel = here_[{item, own_, -1}];
    if (parcel.memory != nullptr) return parcel;
    const Stopwatch watch = Computing();
    parcel = Empty(item, own_);
    std::vector<Tensor> from = {saved_.q};
    if (item == Item::kKeyValue) from = {saved_.k, saved_.v};
    if (item == Item::kQuery && !forward()) from = {saved_.q, dy_, saved_.lse, delta_};
    for (size_t i = 0; i < from.size(); ++i) device_.ops().Copy(from[i], parcel[i]);
    return parcel;
  }

  // A transfer under way, and the memory it needs.
  struct Flight {
    comm::Work work;
    Parcel parcel;
    std::optional<Transfer> receive;
    size_t due;  // the step at whose end it is over
  };

  absl::Status Step(size_t index) {
    const AttentionStep& step = steps_[index];
    const auto due = [&](const Transfer& transfer) {
      return std::min(index + transfer.slack, steps_.size() - 1);
    };
    std::vector<ItemKey> passing;  // blocks of others that were here when the step began
    for (const auto& [key, parcel] : here_) {
      if (std::get<1>(key) != own_) passing.push_back(key);
    }
    comm::Communicator& comm = *core_.group.comm;
    for (const Transfer& receive : step.receives) {
      Parcel parcel = Empty(receive.item, receive.block);
      comm::Work work = comm.Recv(parcel.memory.get(), parcel.bytes, DataType::kU8,
                                  core_.group.members[receive.peer], Tag(receive));
      flights_.push_back({std::move(work), std::move(parcel), receive, due(receive)});
    }
    std::vector<Parcel> sent;
    for (const Transfer& send : step.sends) {
      const bool own = send.block == own_ && (send.item == Item::kKeyValue || send.item == Item::kQuery);
      sent.push_back(own ? Own(send.item) : here_.at(ItemKeyOf(send)));
    }
    device_.Synchronize();
    for (size_t i = 0; i < sent.size(); ++i) {
      const Transfer& send = step.sends[i];
      comm::Work work = comm.Send(sent[i].memory.get(), sent[i].bytes, DataType::kU8,
                                  core_.group.members[send.peer], Tag(send));
      flights_.push_back({std::move(work), std::move(sent[i]), std::nullopt, due(send)});
    }
    std::map<ItemKey, Parcel> made;
    if (step.compute.has_value()) {
      const Stopwatch watch = Computing();
      forward() ? ComputeForward(*step.compute, made) : ComputeBackward(*step.compute, made);
      device_.Synchronize();
    }
    {
      const Stopwatch watch = Waiting();
      const runtime::WaitScope waits("wait for a context");
      for (const Flight& flight : flights_) {
        if (flight.due == index) COHORT_RETURN_IF_ERROR(flight.work.Wait());
      }
    }
    for (const ItemKey& key : passing) here_.erase(key);
    const Stopwatch watch = Computing();
    for (Flight& flight : flights_) {
      if (flight.due == index && flight.receive.has_value())
        Take(*flight.receive, std::move(flight.parcel), made);
    }
    here_.merge(made);
    device_.Synchronize();
    std::erase_if(flights_, [&](const Flight& flight) { return flight.due == index; });
    return absl::OkStatus();
  }

  void Take(const Transfer& receive, Parcel parcel, std::map<ItemKey, Parcel>& made) {
    runtime::Ops& ops = device_.ops();
    const bool mine = receive.block == own_;
    if (receive.item == Item::kOutput) {
      Merge(parcel[0], parcel[1]);
    } else if (receive.item == Item::kQueryGrad) {
      ops.Accumulate(parcel[0], 1, dq_);
    } else if (receive.item == Item::kKeyValueGrad && mine) {
      ops.Accumulate(parcel[0], 1, dk_);
      ops.Accumulate(parcel[1], 1, dv_);
    } else if (const auto own = made.find(ItemKeyOf(receive));
               own != made.end()) {  // gradients: this rank's added
      for (size_t i = 0; i < 2; ++i) ops.Accumulate(parcel[i], 1, own->second[i]);
    } else {
      here_[ItemKeyOf(receive)] = std::move(parcel);
    }
  }

  void Merge(const Tensor& y, const Tensor& lse) {
    if (merged_) {
      device_.ops().MergeAttention(y, lse, saved_.y, saved_.lse);
    } else {
      device_.ops().Copy(y, saved_.y);
      device_.ops().Copy(lse, saved_.lse);
    }
    merged_ = true;
  }

  // Keys and values of a computation: rows of a block.
  std::pair<Tensor, Tensor> KeyRows(const Computation& compute, const RingKeys& keys) {
    const bool mine = compute.keys == own_;
    const Parcel* parcel = mine ? nullptr : &here_.at({Item::kKeyValue, compute.keys, -1});
    const Tensor &k = mine ? saved_.k : (*parcel)[0], &v = mine ? saved_.v : (*parcel)[1];
    return {k.Slice(keys.begin, keys.end), v.Slice(keys.begin, keys.end)};
  }

  void ComputeForward(const Computation& compute, std::map<ItemKey, Parcel>& made) {
    const RingKeys& keys = core_.KeysOf(compute);
    const RingKeys& queries = core_.blocks[compute.queries];
    const std::pair<Tensor, Tensor> rows = KeyRows(compute, keys);
    const auto part = [&](const Tensor& q, const Tensor& y, const Tensor& lse) {
      device_.ops().AttentionPart(q, rows.first, rows.second, queries.offsets, keys.offsets,
                                  queries.positions, keys.positions, saved_.scale, y, lse);
    };
    if (compute.queries != own_) {
      Parcel output = Empty(Item::kOutput, compute.queries);
      part(here_.at({Item::kQuery, compute.queries, -1})[0], output[0], output[1]);
      made[{Item::kOutput, compute.queries, compute.keys}] = std::move(output);
    } else if (!merged_) {
      part(saved_.q, saved_.y, saved_.lse);
      merged_ = true;
    } else {
      if (!part_y_.defined()) {
        part_y_ = Tensor::Empty(device_, saved_.y.shape(), state());
        part_lse_ = Tensor::Empty(device_, saved_.lse.shape(), state());
      }
      part(saved_.q, part_y_, part_lse_);
      Merge(part_y_, part_lse_);
    }
  }

  void ComputeBackward(const Computation& compute, std::map<ItemKey, Parcel>& made) {
    const RingKeys& keys = core_.KeysOf(compute);
    const RingKeys& queries = core_.blocks[compute.queries];
    const auto [k, v] = KeyRows(compute, keys);
    Tensor dy = dy_, q = saved_.q, lse = saved_.lse, delta = delta_, dq = dq_;
    Tensor dk = dk_, dv = dv_;
    if (compute.queries != own_) {
      const Parcel& query = here_.at({Item::kQuery, compute.queries, -1});
      q = query[0], dy = query[1], lse = query[2], delta = query[3];
      const ItemKey key = {Item::kQueryGrad, compute.queries, compute.keys};
      made[key] = Zeros(Item::kQueryGrad, compute.queries);
      dq = made[key][0];
    }
    if (compute.keys != own_) {
      const ItemKey key = {Item::kKeyValueGrad, compute.keys, -1};
      made[key] = Zeros(Item::kKeyValueGrad, compute.keys);
      dk = made[key][0], dv = made[key][1];
    }
    device_.ops().AttentionPartGrad(dy, q, k, v, lse, delta, queries.offsets, keys.offsets, queries.positions,
                                    keys.positions, saved_.scale, dq, dk.Slice(keys.begin, keys.end),
                                    dv.Slice(keys.begin, keys.end));
  }

  const RingParts& core_;
  const AttentionPlan& plan_;
  Device& device_;
  const int own_;
  const std::vector<AttentionStep>& steps_;
  const SavedTensors& saved_;
  const Tensor dy_, dq_, dk_, dv_;
  const int64_t heads_, kv_heads_, width_;
  std::map<ItemKey, Parcel> here_;  // blocks of others, results for them, and own blocks once packed
  std::vector<Flight> flights_;
  bool merged_ = false;  // saved_.y and lse have something
  Tensor part_y_, part_lse_;
  Tensor delta_;  // of the backward
};

Tensor RingIndices(Device& device, const std::vector<int32_t>& values) {
  return Tensor::FromHost(device, {static_cast<int64_t>(values.size())}, absl::MakeConstSpan(values));
}

}  // namespace

const RingKeys& RingParts::KeysOf(const Computation& compute) const {
  switch (compute.portion) {
    case Portion::kEarlierKeys:
      return earlier;
    case Portion::kLaterKeys:
      return later;
    case Portion::kAll:
      break;
  }
  return blocks[compute.keys];
}

RingCore::RingCore(ContextGroup group, const std::vector<BlockLayout>& blocks, AttentionPlan forward,
                   AttentionPlan backward, Device& device, AttentionSeconds* seconds)
    : parts_{std::move(group), {}, {}, {}, seconds},
      forward_(std::move(forward)),
      backward_(std::move(backward)) {
  for (const AttentionPlan* plan : {&forward_, &backward_}) {
    COHORT_CHECK(plan->ranks == parts_.group.size() && plan->way.head_parts == 1 &&
                     blocks.size() == static_cast<size_t>(plan->ranks),
                 "a ring of %d ranks with a plan of %d and %zu blocks", parts_.group.size(), plan->ranks,
                 blocks.size());
  }
  const auto keys = [&](const BlockLayout& block, int64_t begin, int64_t end) {
    std::vector<int32_t> offsets;
    for (const int64_t offset : block.offsets) {
      offsets.push_back(static_cast<int32_t>(std::clamp(offset, begin, end) - begin));
    }
    return RingKeys{begin, end, RingIndices(device, offsets),
                    RingIndices(device, {block.positions.begin() + begin, block.positions.begin() + end})};
  };
  for (const BlockLayout& block : blocks) parts_.blocks.push_back(keys(block, 0, block.tokens()));
  const BlockLayout& own = blocks[parts_.group.rank];
  const int64_t middle = MiddleKey(own);
  parts_.earlier = keys(own, 0, middle), parts_.later = keys(own, middle, own.tokens());
}

absl::StatusOr<Tensor> RingCore::Forward(const Tensor& q, const Tensor& k, const Tensor& v, double scale,
                                         std::unique_ptr<Saved>* saved) {
  Device& device = q.device();
  COHORT_CHECK(q.dim(0) == parts_.tokens(parts_.group.rank) && k.dim(0) == q.dim(0),
               "attention of %ld tokens where the split gives this rank %ld", static_cast<long>(q.dim(0)),
               static_cast<long>(parts_.tokens(parts_.group.rank)));
  auto tensors = std::make_unique<SavedTensors>();
  tensors->q = q, tensors->k = k, tensors->v = v, tensors->scale = scale;
  tensors->y = Tensor::Empty(device, q.shape(), device.state_dtype());
  tensors->lse = Tensor::Empty(device, {q.dim(1), q.dim(0)}, device.state_dtype());
  COHORT_RETURN_IF_ERROR(RingWalk(parts_, forward_, *tensors, {}, {}, {}, {}).Run());
  if (q.dtype() != device.state_dtype()) {
    const Tensor y = Tensor::Empty(device, q.shape(), q.dtype());
    device.ops().Copy(tensors->y, y);
    tensors->y = y;
  }
  const Tensor y = tensors->y;
  if (saved != nullptr) *saved = std::move(tensors);
  return y;
}

absl::Status RingCore::Backward(const Tensor& dy, Saved& saved, const Tensor& dq, const Tensor& dk,
                                const Tensor& dv) {
  Device& device = dy.device();
  const auto& tensors = static_cast<const SavedTensors&>(saved);
  const auto sum = [&](const Tensor& gradient) {
    const bool same = gradient.dtype() == device.state_dtype();
    const Tensor state = same ? gradient : Tensor::Empty(device, gradient.shape(), device.state_dtype());
    device.ops().Fill(state, 0);
    return state;
  };
  const Tensor sums[] = {sum(dq), sum(dk), sum(dv)};
  COHORT_RETURN_IF_ERROR(RingWalk(parts_, backward_, tensors, dy, sums[0], sums[1], sums[2]).Run());
  const Tensor* const gradients[] = {&dq, &dk, &dv};
  for (int i = 0; i < 3; ++i) {
    if (gradients[i]->raw() != sums[i].raw()) device.ops().Copy(sums[i], *gradients[i]);
  }
  return absl::OkStatus();
}

}  // namespace cohort::parallel
