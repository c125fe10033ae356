// Tensor parallelism's part in the layers: rows and sums over the ranks that hold parts of the same matrices.
#pragma once

#include <memory>
#include <vector>

#include "comm/communicator.h"
#include "runtime/model/spread.h"

namespace cohort::parallel {

// A layer's input is gathered over the group and its output reduce-scattered: together they move what one
// all-reduce would, and norms are computed once (Korthikanti et al., 2022, section 4.2.2); the backward does
// the same the other way round. Sums of bf16 are accumulated in f32. The communicator is this object's
// alone. One thread; errors are the communicator's.
class TensorCommunicator final : public runtime::TensorGroup {
 public:
  // `ranks`: over the memory that tensors lie in (runtime/collectives).
  explicit TensorCommunicator(std::shared_ptr<comm::Communicator> ranks) : ranks_(std::move(ranks)) {}

  int rank() const override { return ranks_->rank(); }
  int size() const override { return ranks_->size(); }
  runtime::RowsInFlight StartGatherRows(const runtime::Tensor& x, int64_t total) override;
  runtime::RowsInFlight StartReduceScatterRows(const runtime::Tensor& y) override;
  absl::Status Sum(const runtime::Tensor& x) override;
  absl::Status Max(const runtime::Tensor& x) override;

 private:
  // Elements of each rank's rows of [total, width].
  std::vector<size_t> Counts(int64_t total, int64_t width) const;
  absl::Status AllReduce(const runtime::Tensor& x, comm::ReduceOp op);

  const std::shared_ptr<comm::Communicator> ranks_;
};

}  // namespace cohort::parallel
