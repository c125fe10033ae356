#include "runtime/model/mlp.h"

#include "absl/strings/str_cat.h"
#include "comm/check.h"
#include "runtime/model/families.h"
#include "runtime/model/linear.h"

namespace cohort::runtime {
namespace {

// x, dy [T, D]; gate, up, act [T, F], F of this part. After BackwardInput gate and up hold their gradients,
// and dy is known.
struct MlpSaved final : FeedForward::Saved {
  Tensor x, gate, up, act, dy;
};

}  // namespace

Mlp::Mlp(const ModelConfig& config, const std::string& prefix, int64_t intermediate_size,
         const TensorGroup& tensor, ParameterGroup& group) {
  const int64_t d = config.hidden_size, f = intermediate_size;
  const double stddev = InitStddev(config);
  const Placement placement = PlacementIn(tensor);
  gate_ = group.Add(absl::StrCat(prefix, "gate_proj.weight"), {f, d}, Init::kNormal, stddev, true, placement,
                    SplitOver(tensor, 0));
  up_ = group.Add(absl::StrCat(prefix, "up_proj.weight"), {f, d}, Init::kNormal, stddev, true, placement,
                  SplitOver(tensor, 0));
  down_ = group.Add(absl::StrCat(prefix, "down_proj.weight"), {d, f}, Init::kNormal,
                    ResidualInitStddev(config), true, placement, SplitOver(tensor, 1));
}

absl::StatusOr<Tensor> Mlp::Forward(const FeedForwardInput& input, std::unique_ptr<Saved>* saved,
                                    LossSums* sums) {
  const Tensor& x = input.x;
  const Tensor gate = Linear(x, *gate_);
  Call(input.meanwhile);
  const Tensor up = Linear(x, *up_);
  Call(input.meanwhile);
  Tensor act = gate;
  if (saved != nullptr) {
    act = Tensor::Empty(gate.device(), gate.shape(), gate.dtype());
    auto kept = std::make_unique<MlpSaved>();
    kept->x = x, kept->gate = gate, kept->up = up, kept->act = act;
    *saved = std::move(kept);
  }
  gate.device().ops().SwiGlu(gate, up, act);
  return Linear(act, *down_);
}

absl::StatusOr<Tensor> Mlp::BackwardInput(const Tensor& dy, Saved& saved, const Meanwhile& meanwhile) {
  auto& kept = static_cast<MlpSaved&>(saved);
  kept.dy = dy;
  Device& device = dy.device();
  const Tensor dact = Tensor::Empty(device, kept.act.shape(), dy.dtype());
  LinearInputGrad(dy, *down_, dact);
  Call(meanwhile);
  device.ops().SwiGluGrad(dact, kept.gate, kept.up, kept.gate, kept.up);
  const Tensor dx = Tensor::Empty(device, kept.x.shape(), dy.dtype());
  LinearInputGrad(kept.gate, *gate_, dx);
  Call(meanwhile);
  LinearInputGrad(kept.up, *up_, dx, /*accumulate=*/true);
  return dx;
}

void Mlp::BackwardWeight(Saved& saved, const Meanwhile& meanwhile) {
  auto& kept = static_cast<MlpSaved&>(saved);
  LinearWeightGrad(kept.dy, kept.act, *down_);
  Call(meanwhile);
  LinearWeightGrad(kept.gate, kept.x, *gate_);
  Call(meanwhile);
  LinearWeightGrad(kept.up, kept.x, *up_);
  Call(meanwhile);
  kept = MlpSaved();
}

}  // namespace cohort::runtime
