// The residual stream and its gradient between the layers of a stage, in one piece or in two halves of a
// batch, each of which travels between the ranks of a tensor group while the other is computed (Gond et al.,
// 2025, TokenWeave).
#pragma once

#include <optional>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/model/batch.h"
#include "runtime/model/parameter.h"

namespace cohort::runtime {

// The residual stream between blocks: base + delta [t, D], this rank's rows. The sum is left to the next
// norm, which makes it in the same pass. delta may be undefined (zero) and is overwritten by who adds it.
struct Stream {
  Tensor base, delta;

  // Makes the sum the base and returns its norm [t, D]; rstd [t].
  Tensor AddAndNormalize(const Parameter& weight, double eps, Tensor& rstd);
};

// How the tokens of a batch lie on this rank: it has its rows of each half (RowsOf), one half after the
// other.
struct StreamRows {
  struct Half {
    TokenBatch batch;
    RowRange local;  // of this rank's rows
  };
  std::vector<Half> halves;  // one: the batch itself
  Tensor offsets;            // kI32 [S+1]: this rank's rows of each sequence
};
StreamRows RowsOfBatch(const TokenBatch& batch, const TensorGroup& tensor);
// This rank's rows of it.
int64_t LocalRows(const TokenBatch& batch, const TensorGroup& tensor);

// One half of the stream, before a layer.
struct HalfStream {
  HalfStream(Tensor base, int64_t tokens) : stream{std::move(base), Tensor()}, tokens(tokens) {}

  Stream stream;
  int64_t tokens;                     // of all ranks
  Tensor summand;                     // [T, D], of the delta: made here and not yet sent
  std::optional<RowsInFlight> delta;  // the sum of all ranks' summands, on its way
  std::optional<RowsInFlight> input;  // the layer's input of all ranks, on its way
  Tensor rstd;                        // of the norm that made it

  // Starts to send the summand, where there is one.
  void Send(TensorGroup& tensor);
  // The delta is here, whatever it takes.
  absl::Status Arrive(TensorGroup& tensor);
  // Whether Arrive would not wait.
  bool Here() const { return !summand.defined() && (!delta.has_value() || delta->Done()); }
};

// One half of the gradient on its way back.
struct HalfGradient {
  HalfGradient(Tensor rows, int64_t tokens) : rows(std::move(rows)), tokens(tokens) {}

  Tensor rows;                         // [t, D] of this rank: of the output of the layer that is next
  int64_t tokens;                      // of all ranks
  std::optional<RowsInFlight> output;  // the same of all ranks, on its way
  std::optional<RowsInFlight> input;   // of the layer's input, on its way back to rows
};

// Rows of all halves, one after another.
Tensor Join(const std::vector<Tensor>& halves);

}  // namespace cohort::runtime
