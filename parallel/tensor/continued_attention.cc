#include "parallel/tensor/continued_attention.h"

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "comm/check.h"

namespace cohort::parallel {
namespace {

using runtime::AttentionCore;
using runtime::Device;
using runtime::Tensor;

// What one layer leaves for the other batch.
struct Handover {
  Tensor k, v;    // forward: of the sequence that goes on, [U, G, C]
  Tensor dk, dv;  // backward: what the second batch's queries add to their gradients, state
};

// With room for what attention makes.
std::unique_ptr<AttentionCore::SavedTensors> Prepare(const Tensor& q, const Tensor& k, const Tensor& v,
                                                     double scale) {
  Device& device = q.device();
  auto tensors = std::make_unique<AttentionCore::SavedTensors>();
  tensors->q = q, tensors->k = k, tensors->v = v, tensors->scale = scale;
  tensors->y = Tensor::Empty(device, q.shape(), q.dtype());
  tensors->lse = Tensor::Empty(device, {q.dim(1), q.dim(0)}, device.state_dtype());
  return tensors;
}

class FirstAttention final : public AttentionCore {
 public:
  // The sequence that goes on begins at token `begin`.
  FirstAttention(std::shared_ptr<Handover> handover, Tensor offsets, int64_t begin)
      : handover_(std::move(handover)), offsets_(std::move(offsets)), begin_(begin) {}

  absl::StatusOr<Tensor> Forward(const Tensor& q, const Tensor& k, const Tensor& v, double scale,
                                 std::unique_ptr<Saved>* saved) override {
    auto kept = Prepare(q, k, v, scale);
    const Tensor y = kept->y;
    q.device().ops().Attention(q, k, v, offsets_, scale, y, kept->lse);
    handover_->k = k.Slice(begin_, k.dim(0));
    handover_->v = v.Slice(begin_, v.dim(0));
    if (saved != nullptr) *saved = std::move(kept);
    return y;
  }

  absl::Status Backward(const Tensor& dy, Saved& saved, const Tensor& dq, const Tensor& dk,
                        const Tensor& dv) override {
    const auto& kept = static_cast<const SavedTensors&>(saved);
    runtime::Ops& ops = dy.device().ops();
    ops.AttentionGrad(dy, kept.q, kept.k, kept.v, kept.y, kept.lse, offsets_, kept.scale, dq, dk, dv);
    COHORT_CHECK(handover_->dk.defined(),
                 "a half's attention goes back before the half that goes on with it");
    const auto add = [&](const Tensor& gradient, Tensor more) {
      if (more.dtype() != gradient.dtype()) more = more.To(more.device(), gradient.dtype());
      const Tensor rows = gradient.Slice(begin_, gradient.dim(0));
      ops.Add(rows, more, rows);
    };
    add(dk, std::exchange(handover_->dk, {}));
    add(dv, std::exchange(handover_->dv, {}));
    return absl::OkStatus();
  }

 private:
  const std::shared_ptr<Handover> handover_;
  const Tensor offsets_;
  const int64_t begin_;
};

class SecondAttention final : public AttentionCore {
 public:
  // Keys: those that are handed over, then this batch's.
  SecondAttention(std::shared_ptr<Handover> handover, Tensor offsets, Tensor positions, Tensor key_offsets,
                  Tensor key_positions)
      : handover_(std::move(handover)),
        offsets_(std::move(offsets)),
        positions_(std::move(positions)),
        key_offsets_(std::move(key_offsets)),
        key_positions_(std::move(key_positions)) {}

  absl::StatusOr<Tensor> Forward(const Tensor& q, const Tensor& k, const Tensor& v, double scale,
                                 std::unique_ptr<Saved>* saved) override {
    Device& device = q.device();
    const auto join = [&](Tensor handed, const Tensor& own) {
      COHORT_CHECK(handed.defined(), "a half's attention comes before the half that it goes on with");
      const Tensor all =
          Tensor::Empty(device, {handed.dim(0) + own.dim(0), own.dim(1), own.dim(2)}, own.dtype());
      device.ops().Copy(handed, all.Slice(0, handed.dim(0)));
      device.ops().Copy(own, all.Slice(handed.dim(0), all.dim(0)));
      return all;
    };
    const Tensor keys = join(std::exchange(handover_->k, {}), k);
    const Tensor values = join(std::exchange(handover_->v, {}), v);
    auto kept = Prepare(q, keys, values, scale);
    const Tensor y = kept->y;
    device.ops().AttentionPart(q, keys, values, offsets_, key_offsets_, positions_, key_positions_, scale, y,
                               kept->lse);
    if (saved != nullptr) *saved = std::move(kept);
    return y;
  }

  absl::Status Backward(const Tensor& dy, Saved& saved, const Tensor& dq, const Tensor& dk,
                        const Tensor& dv) override {
    const auto& kept = static_cast<const SavedTensors&>(saved);
    Device& device = dy.device();
    runtime::Ops& ops = device.ops();
    const auto zeros = [&](const Tensor& like) {
      return Tensor::Zeros(device, like.shape(), device.state_dtype());
    };
    const Tensor dqueries = zeros(kept.q), dkeys = zeros(kept.k), dvalues = zeros(kept.v);
    const Tensor delta = Tensor::Empty(device, kept.lse.shape(), kept.lse.dtype());
    ops.AttentionDelta(dy, kept.y, delta);
    ops.AttentionPartGrad(dy, kept.q, kept.k, kept.v, kept.lse, delta, offsets_, key_offsets_, positions_,
                          key_positions_, kept.scale, dqueries, dkeys, dvalues);
    const int64_t handed = dkeys.dim(0) - dk.dim(0);
    ops.Copy(dqueries, dq);
    ops.Copy(dkeys.Slice(handed, dkeys.dim(0)), dk);
    ops.Copy(dvalues.Slice(handed, dvalues.dim(0)), dv);
    handover_->dk = dkeys.Slice(0, handed);
    handover_->dv = dvalues.Slice(0, handed);
    return absl::OkStatus();
  }

 private:
  const std::shared_ptr<Handover> handover_;
  const Tensor offsets_, positions_, key_offsets_, key_positions_;
};

}  // namespace

void ContinueAttention(runtime::TokenBatch& first, runtime::TokenBatch& second) {
  Device& device = first.tokens.device();
  const auto tensor = [&](const std::vector<int32_t>& values) {
    return Tensor::FromHost(device, {static_cast<int64_t>(values.size())}, absl::MakeConstSpan(values));
  };
  const int32_t begin = first.host_offsets[first.host_offsets.size() - 2];
  const int32_t handed = first.host_offsets.back() - begin;
  std::vector<int32_t> key_offsets = second.host_offsets;
  for (size_t s = 1; s < key_offsets.size(); ++s) key_offsets[s] += handed;
  std::vector<int32_t> key_positions;
  for (const double position : ToHost(first.positions.Slice(begin, begin + handed))) {
    key_positions.push_back(static_cast<int32_t>(position));
  }
  for (const double position : ToHost(second.positions))
    key_positions.push_back(static_cast<int32_t>(position));
  const auto handover = std::make_shared<Handover>();
  first.attention = std::make_shared<FirstAttention>(handover, first.offsets, begin);
  second.attention = std::make_shared<SecondAttention>(handover, second.offsets, second.positions,
                                                       tensor(key_offsets), tensor(key_positions));
}

}  // namespace cohort::parallel
