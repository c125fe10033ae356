#include "moe/experts.h"

#include "runtime/model/families.h"
#include "runtime/ops/ops.h"

namespace cohort::moe {

using runtime::Parameter;
using runtime::Placement;
using runtime::Projection;
using runtime::Tensor;

namespace {

// y [M, out] = x [M, in] times each row's expert's weight [out, in], transposed.
Tensor Grouped(const Tensor& x, const std::vector<ExpertRows>& runs, const std::vector<Parameter*>& weights) {
  const Tensor y = Tensor::Empty(x.device(), {x.dim(0), weights.front()->shape[0]}, x.dtype());
  for (const auto& [begin, end, offsets] : runs) {
    x.device().ops().GroupedMatMul(x.Slice(begin, end), offsets, StackedValue(weights),
                                   /*transpose_w=*/false, y.Slice(begin, end));
  }
  return y;
}

// dx [M, in] of dy [M, out].
Tensor GroupedInputGrad(const Tensor& dy, const std::vector<ExpertRows>& runs,
                        const std::vector<Parameter*>& weights) {
  const Tensor dx = Tensor::Empty(dy.device(), {dy.dim(0), weights.front()->shape[1]}, dy.dtype());
  for (const auto& [begin, end, offsets] : runs) {
    dy.device().ops().GroupedMatMul(dy.Slice(begin, end), offsets, StackedValue(weights),
                                    /*transpose_w=*/true, dx.Slice(begin, end));
  }
  return dx;
}

void GroupedWeightGrad(const Tensor& dy, const Tensor& x, const std::vector<ExpertRows>& runs,
                       const std::vector<Parameter*>& weights) {
  for (size_t i = 0; i < runs.size(); ++i) {
    const auto& [begin, end, offsets] = runs[i];
    x.device().ops().GroupedMatMulWeightGrad(dy.Slice(begin, end), x.Slice(begin, end), offsets,
                                             StackedGrad(weights, i));
  }
}

}  // namespace

Experts::Experts(const runtime::ModelConfig& config, const std::string& prefix, const ExpertGroup& ranks,
                 runtime::ParameterGroup& group)
    : width_(config.moe_intermediate_size) {
  const runtime::ExpertNames& names = runtime::FamilyOf(config).expert_names;
  const int64_t local = config.num_experts / ranks.size(), first = local * ranks.rank();
  const auto stack = [&](Projection projection, runtime::Shape shape, double stddev) {
    std::vector<std::string> of_experts;
    for (int64_t e = first; e < first + local; ++e) of_experts.push_back(names.Expert(prefix, e, projection));
    return group.AddStack(of_experts, std::move(shape), stddev, Placement::kExpert);
  };
  gate_ = stack(Projection::kGate, {width_, config.hidden_size}, InitStddev(config));
  up_ = stack(Projection::kUp, {width_, config.hidden_size}, InitStddev(config));
  down_ = stack(Projection::kDown, {config.hidden_size, width_}, ResidualInitStddev(config));
}

Tensor Experts::Forward(const Tensor& x, const std::vector<ExpertRows>& runs, Saved* saved) const {
  const Tensor gate = Grouped(x, runs, gate_), up = Grouped(x, runs, up_);
  Tensor activation = gate;
  if (saved != nullptr) {
    activation = Tensor::Empty(gate.device(), gate.shape(), gate.dtype());
    *saved = {.runs = runs, .x = x, .gate = gate, .up = up, .activation = activation, .dy = {}};
  }
  gate.device().ops().SwiGlu(gate, up, activation);
  return Grouped(activation, runs, down_);
}

Tensor Experts::BackwardInput(const Tensor& dy, Saved& saved) const {
  runtime::Ops& ops = dy.device().ops();
  const Tensor dactivation = GroupedInputGrad(dy, saved.runs, down_);
  ops.SwiGluGrad(dactivation, saved.gate, saved.up, saved.gate, saved.up);
  saved.dy = dy;
  const Tensor dx = GroupedInputGrad(saved.gate, saved.runs, gate_);
  ops.Add(dx, GroupedInputGrad(saved.up, saved.runs, up_), dx);
  return dx;
}

void Experts::BackwardWeight(Saved& saved) const {
  GroupedWeightGrad(saved.dy, saved.activation, saved.runs, down_);
  GroupedWeightGrad(saved.gate, saved.x, saved.runs, gate_);
  GroupedWeightGrad(saved.up, saved.x, saved.runs, up_);
}

}  // namespace cohort::moe
