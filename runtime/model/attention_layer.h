// The attention half of a decoder block: projections, optional QK-norm, rotary positions, attention.
#pragma once

#include <string>

#include "runtime/model/batch.h"
#include "runtime/model/model_config.h"
#include "runtime/model/parameter.h"

namespace cohort::runtime {

class AttentionLayer {
 public:
  // What the forward keeps for the backward; afterwards what the input's gradient keeps for the weights'.
  struct Saved {
    Tensor x, positions, offsets;
    Tensor q_raw, k_raw, q_rstd, k_rstd;  // before QK-norm
    Tensor q, k, v, y, lse;               // what attention saw and made
    std::shared_ptr<AttentionCore>
        core;  // who computed it, where sequences are not whole here, and what it kept
    std::unique_ptr<AttentionCore::Saved> core_saved;
    Tensor dout, dq, dk, dv;
  };

  // Adds its parameters to `group` (allocated later). `prefix`: "model.layers.3.". `rope`: MakeRopeTable. The
  // heads are divided over `tensor`, whose size divides them, key/value heads too.
  AttentionLayer(const ModelConfig& config, const std::string& prefix, Tensor rope, const TensorGroup& tensor,
                 ParameterGroup& group);

  // x [T, D] -> [T, D], what this part's heads add to the output, the caller's to overwrite. saved null:
  // nothing is kept. x stays as it is until BackwardWeight. Errors are those of communication in attention.
  absl::StatusOr<Tensor> Forward(const Tensor& x, const TokenBatch& batch, Saved* saved,
                                 const Meanwhile& meanwhile = {}) const;
  // dx [T, D], this part's, the caller's to overwrite; dout stays as it is until BackwardWeight. Accumulates
  // the gradients of the QK-norms; those of the matrices are BackwardWeight's.
  absl::StatusOr<Tensor> BackwardInput(const Tensor& dout, Saved& saved,
                                       const Meanwhile& meanwhile = {}) const;
  void BackwardWeight(Saved& saved, const Meanwhile& meanwhile = {}) const;

  // Stores the new keys and values in the pages, then attends to all of each sequence.
  Tensor ForwardPaged(const Tensor& x, const PagedBatch& batch, const KvPages& pages) const;

 private:
  // q, k and v of x, normalised and rotated. saved, where not null, gets everything but x's sequences and y.
  void Project(const Tensor& x, const Tensor& positions, Tensor& q, Tensor& k, Tensor& v, Saved* saved,
               const Meanwhile& meanwhile) const;
  // In place, or from `raw` where the gradient needs that.
  void Normalize(const Parameter& weight, const Tensor& raw, const Tensor& out, Tensor& rstd) const;

  int64_t heads_, kv_heads_, head_dim_;  // heads of this part
  double eps_, scale_;
  Tensor rope_;
  Parameter *q_proj_, *k_proj_, *v_proj_, *o_proj_;
  Parameter *q_norm_ = nullptr, *k_norm_ = nullptr;
};

}  // namespace cohort::runtime
