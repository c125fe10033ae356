// RMSNorm, rotary positions, embeddings and the loss.
#include "runtime/ops/cuda/layers.h"

#include "runtime/ops/check_shapes.h"
#include "runtime/ops/cuda/compute_type.h"
#include "runtime/ops/cuda/cuda_ops.h"
#include "runtime/ops/cuda/loss.h"

namespace cohort::runtime::COHORT_CUDA {
namespace {

// residual undefined: the norm of x.
void Norm(const char* op, const Queue& queue, const Tensor& x, const Tensor& residual, const Tensor& w,
          double eps, const Tensor& sum, const Tensor& y, const Tensor& rstd) {
  const int64_t rows = x.dim(0), d = x.dim(1);
  CheckSameShape(op, x, y);
  CheckShape(op, w, {d});
  CheckShape(op, rstd, {rows});
  WithComputeType(op, x, [&]<typename T>(T) {
    RmsNormRows<T>(queue, Data<T>(x), Data<T>(residual), Data<T>(w), static_cast<float>(eps), Data<T>(sum),
                   Data<T>(y), Floats(rstd), rows, d);
  });
}

}  // namespace

void CudaOps::RmsNorm(const Tensor& x, const Tensor& w, double eps, const Tensor& y, const Tensor& rstd) {
  Norm("RmsNorm", Enter(), x, Tensor(), w, eps, Tensor(), y, rstd);
}

void CudaOps::AddRmsNorm(const Tensor& x, const Tensor& residual, const Tensor& w, double eps,
                         const Tensor& sum, const Tensor& y, const Tensor& rstd) {
  CheckSameShape("AddRmsNorm", x, residual);
  CheckSameShape("AddRmsNorm", x, sum);
  Norm("AddRmsNorm", Enter(), x, residual, w, eps, sum, y, rstd);
}

void CudaOps::RmsNormGrad(const Tensor& dy, const Tensor& x, const Tensor& w, const Tensor& rstd,
                          const Tensor& add, const Tensor& dx) {
  const int64_t rows = x.dim(0), d = x.dim(1);
  CheckSameShape("RmsNormGrad", dy, x);
  CheckSameShape("RmsNormGrad", dx, x);
  CheckShape("RmsNormGrad", w, {d});
  CheckShape("RmsNormGrad", rstd, {rows});
  if (add.defined()) CheckSameShape("RmsNormGrad", add, x);
  WithComputeType("RmsNormGrad", x, [&]<typename T>(T) {
    RmsNormGradRows<T>(Enter(), Data<T>(dy), Data<T>(x), Data<T>(w), Floats(rstd), Data<T>(add), Data<T>(dx),
                       rows, d);
  });
}

void CudaOps::RmsNormWeightGrad(const Tensor& dy, const Tensor& x, const Tensor& rstd, const Tensor& dw) {
  const int64_t rows = x.dim(0), d = x.dim(1);
  CheckSameShape("RmsNormWeightGrad", dy, x);
  CheckShape("RmsNormWeightGrad", rstd, {rows});
  CheckShape("RmsNormWeightGrad", dw, {d});
  const Tensor partial = Scratch({NormChunks(rows), d}, DataType::kF32);
  WithComputeType("RmsNormWeightGrad", x, [&]<typename T>(T) {
    RmsNormWeightGradRows<T>(Enter(), Data<T>(dy), Data<T>(x), Floats(rstd), Floats(partial), Floats(dw),
                             rows, d);
  });
}

void CudaOps::Rope(const Tensor& x, const Tensor& positions, const Tensor& table, bool inverse) {
  const int64_t tokens = x.dim(0), heads = x.dim(1), c = x.dim(2);
  COHORT_CHECK(c % 2 == 0, "Rope of %s: an odd head width", x.DebugString().c_str());
  CheckShape("Rope", positions, {tokens});
  CheckShape("Rope", table, {table.dim(0), c});
  WithComputeType("Rope", x, [&]<typename T>(T) {
    RopeRows<T>(Enter(), Data<T>(x), Indices(positions), Floats(table), table.dim(0), inverse ? -1.0f : 1.0f,
                tokens, heads, c);
  });
}

void CudaOps::GatherRows(const Tensor& table, const Tensor& rows, const Tensor& y) {
  const int64_t d = table.dim(1);
  CheckShape("GatherRows", y, {rows.size(), d});
  CheckSameType("GatherRows", table, y);
  GatherRowBytes(Enter(), table.raw(), table.dim(0), Indices(rows), y.raw(), rows.size(),
                 d * static_cast<int64_t>(SizeOf(table.dtype())));
}

void CudaOps::EmbeddingGrad(const Tensor& dy, const Tensor& tokens, const Tensor& dtable) {
  const int64_t d = dtable.dim(1), count = tokens.size();
  CheckShape("EmbeddingGrad", dy, {count, d});
  WithComputeType("EmbeddingGrad", dy, [&]<typename T>(T) {
    EmbeddingGradRows<T>(Enter(), Data<T>(dy), Indices(tokens), Floats(dtable), count, dtable.dim(0), d);
  });
}

void CudaOps::CrossEntropy(const Tensor& logits, const Tensor& targets, double grad_scale,
                           const Tensor& losses, const Tensor& dlogits) {
  const int64_t rows = logits.dim(0), v = logits.dim(1);
  CheckShape("CrossEntropy", targets, {rows});
  CheckShape("CrossEntropy", losses, {rows});
  if (dlogits.defined()) CheckSameShape("CrossEntropy", logits, dlogits);
  WithComputeType("CrossEntropy", logits, [&]<typename T>(T) {
    CrossEntropyRows<T>(Enter(), Data<T>(logits), Indices(targets), static_cast<float>(grad_scale),
                        Floats(losses), Data<T>(dlogits), rows, v);
  });
}

void CudaOps::VocabularyStats(const Tensor& logits, const Tensor& targets, int64_t first, const Tensor& max,
                              const Tensor& sum, const Tensor& target_logit) {
  const int64_t rows = logits.dim(0), v = logits.dim(1);
  for (const Tensor* other : {&targets, &max, &sum, &target_logit})
    CheckShape("VocabularyStats", *other, {rows});
  WithComputeType("VocabularyStats", logits, [&]<typename T>(T) {
    VocabularyStatsRows<T>(Enter(), Data<T>(logits), Indices(targets), first, Floats(max), Floats(sum),
                           Floats(target_logit), rows, v);
  });
}

void CudaOps::VocabularyRescale(const Tensor& max, const Tensor& global_max, const Tensor& sum) {
  CheckSameShape("VocabularyRescale", max, global_max);
  CheckSameShape("VocabularyRescale", max, sum);
  VocabularyRescaleRows(Enter(), Floats(max), Floats(global_max), Floats(sum), max.size());
}

void CudaOps::VocabularyLoss(const Tensor& targets, const Tensor& max, const Tensor& sum,
                             const Tensor& target_logit, const Tensor& lse, const Tensor& losses) {
  for (const Tensor* other : {&max, &sum, &target_logit, &lse, &losses}) {
    CheckSameShape("VocabularyLoss", targets, *other);
  }
  VocabularyLossRows(Enter(), Indices(targets), Floats(max), Floats(sum), Floats(target_logit), Floats(lse),
                     Floats(losses), targets.size());
}

void CudaOps::VocabularyGrad(const Tensor& logits, const Tensor& targets, int64_t first, const Tensor& lse,
                             double grad_scale, const Tensor& dlogits) {
  const int64_t rows = logits.dim(0), v = logits.dim(1);
  for (const Tensor* other : {&targets, &lse}) CheckShape("VocabularyGrad", *other, {rows});
  CheckSameShape("VocabularyGrad", logits, dlogits);
  WithComputeType("VocabularyGrad", logits, [&]<typename T>(T) {
    VocabularyGradRows<T>(Enter(), Data<T>(logits), Indices(targets), first, Floats(lse),
                          static_cast<float>(grad_scale), Data<T>(dlogits), rows, v);
  });
}

}  // namespace cohort::runtime::COHORT_CUDA
