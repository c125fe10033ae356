// Gathering rows of a table, and the gradient of an embedding.
#include <algorithm>

#include "runtime/ops/check_shapes.h"
#include "runtime/ops/reference/reference_ops.h"

namespace cohort::runtime {

void ReferenceOps::GatherRows(const Tensor& table, const Tensor& rows, const Tensor& y) {
  const int64_t d = table.dim(1);
  CheckShape("GatherRows", y, {rows.size(), d});
  for (int64_t t = 0; t < rows.size(); ++t) {
    const int64_t row = rows.data<int32_t>()[t];
    COHORT_CHECK(row < table.dim(0), "GatherRows: row %ld of %s", static_cast<long>(row),
                 table.DebugString().c_str());
    double* to = y.data<double>() + t * d;
    if (row < 0) {
      std::fill(to, to + d, 0.0);
    } else {
      std::copy_n(table.data<double>() + row * d, d, to);
    }
  }
}

void ReferenceOps::EmbeddingGrad(const Tensor& dy, const Tensor& tokens, const Tensor& dtable) {
  const int64_t d = dtable.dim(1);
  CheckShape("EmbeddingGrad", dy, {tokens.size(), d});
  for (int64_t t = 0; t < tokens.size(); ++t) {
    const int64_t row = tokens.data<int32_t>()[t];
    if (row < 0) continue;
    COHORT_CHECK(row < dtable.dim(0), "EmbeddingGrad: token %ld of %s", static_cast<long>(row),
                 dtable.DebugString().c_str());
    for (int64_t i = 0; i < d; ++i) dtable.data<double>()[row * d + i] += dy.data<double>()[t * d + i];
  }
}

}  // namespace cohort::runtime
