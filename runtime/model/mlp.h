// The dense feed-forward: SwiGLU between two projections up and one down. Also a mixture's shared expert.
#pragma once

#include <memory>
#include <string>

#include "runtime/model/feed_forward.h"

namespace cohort::runtime {

class Mlp final : public FeedForward {
 public:
  // Parameters <prefix>{gate,up,down}_proj.weight of this width, added to `group` (allocated later). `prefix`
  // ends with the module: "model.layers.3.mlp.". The width is divided over `tensor`.
  Mlp(const ModelConfig& config, const std::string& prefix, int64_t intermediate_size,
      const TensorGroup& tensor, ParameterGroup& group);

  bool divided() const override { return true; }
  bool only_enqueues() const override { return true; }
  absl::StatusOr<Tensor> Forward(const FeedForwardInput& input, std::unique_ptr<Saved>* saved,
                                 LossSums* sums) override;
  absl::StatusOr<Tensor> BackwardInput(const Tensor& dy, Saved& saved, const Meanwhile& meanwhile) override;
  void BackwardWeight(Saved& saved, const Meanwhile& meanwhile) override;

 private:
  Parameter *gate_, *up_, *down_;
};

}  // namespace cohort::runtime
