#include "parallel/tensor/tensor_communicator.h"

#include "comm/check.h"
#include "runtime/metrics/waited.h"

namespace cohort::parallel {

using runtime::RowsInFlight;
using runtime::Tensor;

std::vector<size_t> TensorCommunicator::Counts(int64_t total, int64_t width) const {
  std::vector<size_t> counts;
  for (int rank = 0; rank < size(); ++rank) {
    counts.push_back(static_cast<size_t>(runtime::RowsOf(total, rank, size()).size() * width));
  }
  return counts;
}

RowsInFlight TensorCommunicator::StartGatherRows(const Tensor& x, int64_t total) {
  if (size() == 1) return RowsInFlight(x);
  COHORT_CHECK(x.dim(0) == runtime::RowsOf(total, rank(), size()).size(), "%s are not this rank's rows of %d",
               x.DebugString().c_str(), static_cast<int>(total));
  const Tensor all = Tensor::Empty(x.device(), {total, x.dim(1)}, x.dtype());
  x.device().Synchronize();
  return {all, x, ranks_->AllGather(x.raw(), all.raw(), Counts(total, x.dim(1)), x.dtype())};
}

RowsInFlight TensorCommunicator::StartReduceScatterRows(const Tensor& y) {
  if (size() == 1) return RowsInFlight(y);
  const Tensor mine =
      Tensor::Empty(y.device(), {runtime::RowsOf(y.dim(0), rank(), size()).size(), y.dim(1)}, y.dtype());
  y.device().Synchronize();
  return {mine, y, ranks_->ReduceScatter(y.raw(), mine.raw(), Counts(y.dim(0), y.dim(1)), y.dtype())};
}

absl::Status TensorCommunicator::AllReduce(const Tensor& x, comm::ReduceOp op) {
  if (size() == 1) return absl::OkStatus();
  x.device().Synchronize();
  const runtime::WaitScope waits("wait for sums");
  return ranks_->AllReduce(x.raw(), x.raw(), static_cast<size_t>(x.size()), x.dtype(), op).Wait();
}

absl::Status TensorCommunicator::Sum(const Tensor& x) { return AllReduce(x, comm::ReduceOp::kSum); }
absl::Status TensorCommunicator::Max(const Tensor& x) { return AllReduce(x, comm::ReduceOp::kMax); }

}  // namespace cohort::parallel
