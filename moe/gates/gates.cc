#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "moe/gates/gate.h"

namespace cohort::moe {
namespace {

constexpr GateRow kGates[] = {
    {"softmax", MakeSoftmaxTopK},
    {"sigmoid", MakeSigmoidTopK},
};

}  // namespace

absl::Span<const GateRow> Gates() { return kGates; }

absl::StatusOr<std::unique_ptr<Gate>> MakeGate(const GateContext& context) {
  const runtime::ModelConfig& config = context.config;
  if (config.num_experts_per_tok < 1 || config.num_experts_per_tok > config.num_experts) {
    return absl::InvalidArgumentError(absl::StrCat("num_experts_per_tok is ", config.num_experts_per_tok,
                                                   "; it must be from 1 to num_experts, which is ",
                                                   config.num_experts));
  }
  for (const GateRow& row : Gates()) {
    if (config.router.gate == row.name) return row.make(context);
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "router.gate is \"", config.router.gate, "\"; known gates: ",
      absl::StrJoin(Gates(), ", ", [](std::string* out, const GateRow& row) { out->append(row.name); })));
}

}  // namespace cohort::moe
