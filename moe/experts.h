// The experts of one block that live on this rank: SwiGLU feed-forwards as grouped matrix products.
#pragma once

#include <string>
#include <vector>

#include "moe/expert_group.h"
#include "moe/expert_rows.h"
#include "runtime/model/model_config.h"
#include "runtime/model/parameter.h"
#include "runtime/tensor.h"

namespace cohort::moe {

// M rows in one or more runs, L local experts, D model width, F expert width. Each run is computed by itself.
// The weight gradients of run i go to Parameter::grad (0) or other_grads[i - 1].
class Experts {
 public:
  // After BackwardInput, gate and up hold their gradients.
  struct Saved {
    std::vector<ExpertRows> runs;
    runtime::Tensor x;                     // [M, D]
    runtime::Tensor gate, up, activation;  // [M, F]
    runtime::Tensor dy;                    // [M, D]
  };

  // Adds the parameters of this rank's experts, named by their global indices, to `group` (allocated later).
  Experts(const runtime::ModelConfig& config, const std::string& prefix, const ExpertGroup& ranks,
          runtime::ParameterGroup& group);

  // x [M, D] -> [M, D]. x may be overwritten where saved is null, and stays as it is until BackwardWeight
  // otherwise.
  runtime::Tensor Forward(const runtime::Tensor& x, const std::vector<ExpertRows>& runs, Saved* saved) const;
  // dy stays as it is until BackwardWeight.
  runtime::Tensor BackwardInput(const runtime::Tensor& dy, Saved& saved) const;
  void BackwardWeight(Saved& saved) const;

 private:
  int64_t width_;                                      // F
  std::vector<runtime::Parameter*> gate_, up_, down_;  // [F, D], [F, D], [D, F] of each local expert
};

}  // namespace cohort::moe
