// The seams by which whoever spreads a model over ranks takes part in what its layers do: how matrices and
// tokens are divided, and who computes attention. Layers know that they hold a part, not where the others
// are.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "comm/work.h"
#include "runtime/tensor.h"

namespace cohort::runtime {

// Rows on their way between the ranks of a tensor group. Nobody touches them before Arrive.
class RowsInFlight {
 public:
  // Already here.
  explicit RowsInFlight(Tensor rows) : rows_(std::move(rows)) {}
  // `work` makes `rows` of `from`.
  RowsInFlight(Tensor rows, Tensor from, comm::Work work)
      : rows_(std::move(rows)), from_(std::move(from)), work_(std::move(work)) {}
  RowsInFlight(RowsInFlight&&) = default;
  RowsInFlight& operator=(RowsInFlight&&) = delete;
  ~RowsInFlight() { work_.Wait().IgnoreError(); }  // what it writes to is freed

  bool Done() const { return work_.Done(); }
  absl::StatusOr<Tensor> Arrive() {
    const absl::Status status = work_.Wait();
    from_ = Tensor();
    if (!status.ok()) return status;
    return rows_;
  }

 private:
  Tensor rows_, from_;
  comm::Work work_;
};

// Ranks that hold parts of the same matrices (Shoeybi et al., 2019) and, between the matrices, each a part of
// the tokens (sequence-sharded norms: Korthikanti et al., 2022, section 4.2). Of T tokens, part r of n has
// rows [T r / n, T (r + 1) / n). All make the same calls in the same order. One thread.
class TensorGroup {
 public:
  virtual ~TensorGroup() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;

  // x, this part's rows of [total, D] -> [total, D]. With size() 1: x itself.
  virtual RowsInFlight StartGatherRows(const Tensor& x, int64_t total) = 0;
  // y [T, D], a summand of every part -> this part's rows of the sum. With size() 1: y itself.
  virtual RowsInFlight StartReduceScatterRows(const Tensor& y) = 0;
  absl::StatusOr<Tensor> GatherRows(const Tensor& x, int64_t total) {
    return StartGatherRows(x, total).Arrive();
  }
  absl::StatusOr<Tensor> ReduceScatterRows(const Tensor& y) { return StartReduceScatterRows(y).Arrive(); }
  // In place, element by element over the parts; the same bits everywhere.
  virtual absl::Status Sum(const Tensor& x) = 0;
  virtual absl::Status Max(const Tensor& x) = 0;
};

// One part: everything is here.
TensorGroup& WholeTensors();

// This part's rows of T.
struct RowRange {
  int64_t begin, end;
  int64_t size() const { return end - begin; }
};
inline RowRange RowsOf(int64_t total, int part, int parts) {
  return {total * part / parts, total * (part + 1) / parts};
}

// Computes attention where a rank has not the whole of its sequences; belongs to one batch
// (TokenBatch::attention).
class AttentionCore {
 public:
  // What the forward keeps for the backward.
  class Saved {
   public:
    virtual ~Saved() = default;
  };
  // What the operations of attention read and made: what most keep.
  struct SavedTensors : Saved {
    Tensor q, k, v, y, lse;
    double scale = 1;
  };
  virtual ~AttentionCore() = default;

  // Causal attention of this rank's queries to all keys of their sequences, wherever those are. q [T, H, C]
  // and k [T, G, C] are normalised and rotated; y [T, H, C]. saved null: nothing is kept. Fails where
  // communication fails.
  virtual absl::StatusOr<Tensor> Forward(const Tensor& q, const Tensor& k, const Tensor& v, double scale,
                                         std::unique_ptr<Saved>* saved) = 0;
  // Writes the gradients dq [T, H, C], dk, dv [T, G, C] of this rank's queries, keys and values.
  virtual absl::Status Backward(const Tensor& dy, Saved& saved, const Tensor& dq, const Tensor& dk,
                                const Tensor& dv) = 0;
};

}  // namespace cohort::runtime
