#include "parallel/gradient_reduction.h"
#include "runtime/metrics/chrome_trace.h"

namespace cohort::parallel {

GradientReduction::~GradientReduction() { Finish().IgnoreError(); }

void GradientReduction::Start(const runtime::Tensor& grad) {
  if (group_->size() == 1 || grad.size() == 0) return;
  grad.device().Synchronize();
  pending_.push_back({grad, group_->AllReduce(grad.raw(), grad.raw(), static_cast<size_t>(grad.size()),
                                              grad.dtype(), comm::ReduceOp::kSum)});
}

absl::Status GradientReduction::Finish() {
  absl::Status first;
  const runtime::TraceScope trace("wait for gradients");
  for (Pending& pending : pending_) first.Update(pending.work.Wait());
  pending_.clear();
  return first;
}

}  // namespace cohort::parallel
