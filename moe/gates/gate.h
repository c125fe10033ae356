// Gates: how a token chooses its experts and how much each counts. One table (gates.cc), a file a gate.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "runtime/model/model_config.h"
#include "runtime/model/parameter.h"
#include "runtime/tensor.h"

namespace cohort::moe {

// T tokens, E experts, K experts a token. Everything but indices is of the device's state type. A gate sees
// logits only: what it computes for a token does not depend on other tokens, so every division of a batch
// over ranks gives the same. One thread.
class Gate {
 public:
  struct Choice {
    runtime::Tensor scores;   // [T, E]: what the gate made of the logits
    runtime::Tensor indices;  // kI32 [T, K]: the chosen experts, best first
    runtime::Tensor picked;   // [T, K]: their scores
    runtime::Tensor weights;  // [T, K]: what their outputs are multiplied by
  };

  virtual ~Gate() = default;

  // logits [T, E].
  virtual Choice Choose(const runtime::Tensor& logits) const = 0;
  // What the balance loss takes as the probability of each expert: rows of [T, E] that sum to one.
  virtual runtime::Tensor Probabilities(const Choice& choice) const = 0;
  // dlogits [T, E] of dweights [T, K] and dprobabilities [T, E] (undefined: none). The choice itself is
  // constant.
  virtual runtime::Tensor Backward(const Choice& choice, const runtime::Tensor& dweights,
                                   const runtime::Tensor& dprobabilities) const = 0;
  // Once an optimizer step: load[e] = tokens of the global batch that chose e. For gates that balance without
  // a loss.
  virtual void UpdateBalance(absl::Span<const int64_t> load) {}
};

// What a gate is made from. It may add parameters or buffers to `group`, which is allocated later.
struct GateContext {
  const runtime::ModelConfig& config;
  const std::string& prefix;  // the block's: "model.layers.3."
  runtime::Device& device;
  runtime::ParameterGroup& group;
};

struct GateRow {
  const char* name;  // RouterConfig::gate
  std::unique_ptr<Gate> (*make)(const GateContext& context);
};
absl::Span<const GateRow> Gates();

// The gate that the config names; INVALID_ARGUMENT lists the known ones.
absl::StatusOr<std::unique_ptr<Gate>> MakeGate(const GateContext& context);

// The rows of the table, a file each.
std::unique_ptr<Gate> MakeSoftmaxTopK(const GateContext& context);
std::unique_ptr<Gate> MakeSigmoidTopK(const GateContext& context);

}  // namespace cohort::moe
