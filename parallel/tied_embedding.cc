#include "parallel/tied_embedding.h"

#include <utility>

#include "comm/check.h"
#include "runtime/collectives/over_device.h"
#include "runtime/ops/ops.h"

namespace cohort::parallel {

using runtime::Tensor;

absl::StatusOr<std::unique_ptr<TiedEmbedding>> TiedEmbedding::Connect(const PipelinePlan& plan,
                                                                      bool deterministic,
                                                                      comm::Communicator& pipeline,
                                                                      runtime::Device& device) {
  const int last = plan.stages() - 1;
  if (!plan.PartOf(last, deterministic).head_copy) return nullptr;
  const int first_rank = plan.rank_of().front(), last_rank = plan.rank_of().back(), rank = pipeline.rank();
  const bool mine = rank == first_rank || rank == last_rank;
  std::shared_ptr<comm::Communicator> both;
  if (first_rank != last_rank) {
    COHORT_ASSIGN_OR_RETURN(both, pipeline.Split(mine ? 0 : 1, rank));
    if (mine) {
      COHORT_ASSIGN_OR_RETURN(both, runtime::OverDevice(device, std::move(both)));
    }
  }
  return mine ? std::unique_ptr<TiedEmbedding>(new TiedEmbedding(std::move(both))) : nullptr;
}

absl::Status TiedEmbedding::Sum(runtime::Device& device, const Tensor& embedding, const Tensor& copy) {
  if (both_ == nullptr) {
    device.ops().Add(embedding, copy, embedding);
    device.ops().Copy(embedding, copy);
    return absl::OkStatus();
  }
  const Tensor& mine = embedding.defined() ? embedding : copy;
  device.Synchronize();
  return both_->AllReduce(mine.raw(), mine.raw(), static_cast<size_t>(mine.size()), mine.dtype()).Wait();
}

}  // namespace cohort::parallel
