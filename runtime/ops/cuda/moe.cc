// The mixture-of-experts operations, router losses and capacity.
#include "runtime/ops/cuda/moe.h"

#include "runtime/ops/check_shapes.h"
#include "runtime/ops/cuda/compute_type.h"
#include "runtime/ops/cuda/cuda_ops.h"

namespace cohort::runtime::COHORT_CUDA {
namespace {

// A warp counts the choices of all experts in shared memory.
void CheckExperts(const char* op, int64_t experts) {
  COHORT_CHECK(experts <= 12288, "%s: %ld experts; at most 12288", op, static_cast<long>(experts));
}

}  // namespace

void CudaOps::Softmax(const Tensor& x, const Tensor& y) {
  CheckSameShape("Softmax", x, y);
  SoftmaxRows(Enter(), Floats(x), Floats(y), x.dim(0), x.dim(1));
}

void CudaOps::SoftmaxGrad(const Tensor& dy, const Tensor& y, const Tensor& dx) {
  CheckSameShape("SoftmaxGrad", dy, y);
  CheckSameShape("SoftmaxGrad", dx, y);
  SoftmaxGradRows(Enter(), Floats(dy), Floats(y), Floats(dx), y.dim(0), y.dim(1));
}

void CudaOps::Sigmoid(const Tensor& x, const Tensor& y) {
  CheckSameShape("Sigmoid", x, y);
  SigmoidElements(Enter(), Floats(x), Floats(y), x.size());
}

void CudaOps::SigmoidGrad(const Tensor& dy, const Tensor& y, const Tensor& dx) {
  CheckSameShape("SigmoidGrad", dy, y);
  CheckSameShape("SigmoidGrad", dx, y);
  SigmoidGradElements(Enter(), Floats(dy), Floats(y), Floats(dx), y.size());
}

void CudaOps::LogSumExp(const Tensor& x, const Tensor& lse) {
  CheckShape("LogSumExp", lse, {x.dim(0)});
  LogSumExpRows(Enter(), Floats(x), Floats(lse), x.dim(0), x.dim(1));
}

void CudaOps::TopK(const Tensor& scores, const Tensor& bias, const Tensor& indices) {
  const int64_t experts = scores.dim(1), k = indices.dim(1);
  CheckShape("TopK", indices, {scores.dim(0), k});
  COHORT_CHECK(k <= experts, "the best %ld of %ld", static_cast<long>(k), static_cast<long>(experts));
  if (bias.defined()) CheckShape("TopK", bias, {experts});
  TopKRows(Enter(), Floats(scores), Floats(bias), Indices(indices), scores.dim(0), experts, k);
}

void CudaOps::GatherColumns(const Tensor& x, const Tensor& indices, const Tensor& y) {
  CheckSameShape("GatherColumns", indices, y);
  GatherColumnsOf(Enter(), Floats(x), Indices(indices), Floats(y), indices.dim(0), x.dim(1), indices.dim(1));
}

void CudaOps::GatherColumnsGrad(const Tensor& dy, const Tensor& indices, const Tensor& dx) {
  CheckSameShape("GatherColumnsGrad", indices, dy);
  GatherColumnsGradOf(Enter(), Floats(dy), Indices(indices), Floats(dx), indices.dim(0), dx.dim(1),
                      indices.dim(1));
}

void CudaOps::NormalizeRows(const Tensor& x, const Tensor& y) {
  CheckSameShape("NormalizeRows", x, y);
  NormalizeRowsOf(Enter(), Floats(x), Floats(y), x.dim(0), x.dim(1));
}

void CudaOps::NormalizeRowsGrad(const Tensor& dy, const Tensor& x, const Tensor& y, const Tensor& dx) {
  for (const Tensor* other : {&dy, &y, &dx}) CheckSameShape("NormalizeRowsGrad", x, *other);
  NormalizeGradRows(Enter(), Floats(dy), Floats(x), Floats(y), Floats(dx), x.dim(0), x.dim(1));
}

void CudaOps::SortByExpert(const Tensor& indices, const Tensor& offsets, const Tensor& order,
                           const Tensor& places) {
  const int64_t experts = offsets.dim(0) - 1, choices = indices.size();
  COHORT_CHECK(order.size() == choices && places.size() == choices, "SortByExpert of %s into %s and %s",
               indices.DebugString().c_str(), order.DebugString().c_str(), places.DebugString().c_str());
  CheckExperts("SortByExpert", experts);
  const Tensor counts = Scratch({SortChunks(choices), experts}, DataType::kI32);
  SortChoices(Enter(), Indices(indices), Indices(counts), Indices(offsets), Indices(order), Indices(places),
              choices, experts);
}

void CudaOps::CombineRows(const Tensor& x, const Tensor& places, const Tensor& weights, const Tensor& y) {
  const int64_t tokens = places.dim(0), k = places.dim(1), width = x.dim(1);
  CheckShape("CombineRows", y, {tokens, width});
  if (weights.defined()) CheckSameShape("CombineRows", places, weights);
  WithComputeType("CombineRows", x, [&]<typename T>(T) {
    CombineTokenRows<T>(Enter(), Data<T>(x), x.dim(0), Indices(places), Floats(weights), Data<T>(y), tokens,
                        k, width);
  });
}

void CudaOps::CombineRowsGrad(const Tensor& dy, const Tensor& x, const Tensor& places, const Tensor& weights,
                              const Tensor& dx, const Tensor& dweights) {
  const int64_t tokens = places.dim(0), k = places.dim(1), width = dy.dim(1);
  CheckShape("CombineRowsGrad", dy, {tokens, width});
  CheckShape("CombineRowsGrad", dx, {dx.dim(0), width});
  if (weights.defined()) CheckSameShape("CombineRowsGrad", places, weights);
  if (dweights.defined()) {
    CheckSameShape("CombineRowsGrad", places, dweights);
    CheckSameShape("CombineRowsGrad", x, dx);
  }
  WithComputeType("CombineRowsGrad", dy, [&]<typename T>(T) {
    CombineGradRows<T>(Enter(), Data<T>(dy), dweights.defined() ? Data<T>(x) : nullptr, Indices(places),
                       Floats(weights), Data<T>(dx), dx.dim(0), Floats(dweights), tokens, k, width);
  });
}

void CudaOps::BalanceLoss(const Tensor& probs, const Tensor& indices, const Tensor& offsets,
                          double grad_scale, const Tensor& losses, const Tensor& dprobs) {
  const int64_t experts = probs.dim(1), k = indices.dim(1), sequences = losses.dim(0);
  CheckShape("BalanceLoss", offsets, {sequences + 1});
  CheckShape("BalanceLoss", indices, {probs.dim(0), k});
  if (dprobs.defined()) CheckSameShape("BalanceLoss", probs, dprobs);
  const Tensor counts = Scratch({sequences, experts}, DataType::kF32);
  const Tensor sums = Scratch({sequences, experts}, DataType::kF32);
  const Queue& queue = Enter();
  BalanceCountsOf(queue, Floats(probs), Indices(indices), Indices(offsets), Floats(counts), Floats(sums),
                  sequences, experts, k);
  BalanceLossOf(queue, Floats(counts), Floats(sums), nullptr, k, static_cast<float>(grad_scale),
                Indices(offsets), Floats(losses), Floats(dprobs), sequences, experts);
}

void CudaOps::BalanceCounts(const Tensor& probs, const Tensor& indices, const Tensor& offsets,
                            const Tensor& counts, const Tensor& prob_sums) {
  const int64_t experts = probs.dim(1), k = indices.dim(1), sequences = counts.dim(0);
  CheckShape("BalanceCounts", offsets, {sequences + 1});
  CheckShape("BalanceCounts", indices, {probs.dim(0), k});
  CheckShape("BalanceCounts", counts, {sequences, experts});
  CheckSameShape("BalanceCounts", counts, prob_sums);
  BalanceCountsOf(Enter(), Floats(probs), Indices(indices), Indices(offsets), Floats(counts),
                  Floats(prob_sums), sequences, experts, k);
}

void CudaOps::BalanceLossFromCounts(const Tensor& counts, const Tensor& prob_sums, const Tensor& lengths,
                                    int64_t choices, double grad_scale, const Tensor& offsets,
                                    const Tensor& losses, const Tensor& dprobs) {
  const int64_t sequences = counts.dim(0), experts = counts.dim(1);
  CheckSameShape("BalanceLossFromCounts", counts, prob_sums);
  for (const Tensor* other : {&lengths, &losses}) CheckShape("BalanceLossFromCounts", *other, {sequences});
  CheckShape("BalanceLossFromCounts", offsets, {sequences + 1});
  if (dprobs.defined()) CheckShape("BalanceLossFromCounts", dprobs, {dprobs.dim(0), experts});
  BalanceLossOf(Enter(), Floats(counts), Floats(prob_sums), Indices(lengths), choices,
                static_cast<float>(grad_scale), Indices(offsets), Floats(losses), Floats(dprobs), sequences,
                experts);
}

void CudaOps::RouterZLoss(const Tensor& logits, double grad_scale, const Tensor& losses,
                          const Tensor& dlogits) {
  CheckShape("RouterZLoss", losses, {logits.dim(0)});
  if (dlogits.defined()) CheckSameShape("RouterZLoss", logits, dlogits);
  RouterZLossRows(Enter(), Floats(logits), static_cast<float>(grad_scale), Floats(losses), Floats(dlogits),
                  logits.dim(0), logits.dim(1));
}

void CudaOps::DropOverCapacity(const Tensor& indices, const Tensor& offsets, int64_t experts, double factor,
                               const Tensor& kept) {
  CheckSameShape("DropOverCapacity", indices, kept);
  CheckExperts("DropOverCapacity", experts);
  DropChoices(Enter(), Indices(indices), Indices(offsets), Indices(kept), offsets.dim(0) - 1, indices.dim(1),
              experts, factor);
}

}  // namespace cohort::runtime::COHORT_CUDA
