// Gathering rows of a table, and the gradient of an embedding.
#include <cstring>

#include "runtime/ops/check_shapes.h"
#include "runtime/ops/cpu/compute_type.h"
#include "runtime/ops/cpu/cpu_ops.h"
#include "runtime/ops/cpu/kernels.h"
#include "runtime/ops/cpu/parallel.h"
#include "runtime/ops/cpu/policy.h"

namespace cohort::runtime {

using namespace cpu_policy;

void CpuOps::GatherRows(const Tensor& table, const Tensor& rows, const Tensor& y) {
  const int64_t d = table.dim(1);
  CheckShape("GatherRows", y, {rows.size(), d});
  CheckSameType("GatherRows", table, y);
  const int32_t* index = rows.data<int32_t>();
  const size_t row_bytes = static_cast<size_t>(d) * SizeOf(table.dtype());
  const char* from = static_cast<const char*>(table.raw());
  char* to = static_cast<char*>(y.raw());
  ParallelFor(rows.size(), 1 + kElementGrain / (d + 1), 1, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      COHORT_CHECK(index[t] < table.dim(0), "GatherRows: row %d of %s", index[t],
                   table.DebugString().c_str());
      if (index[t] < 0) {
        std::memset(to + t * row_bytes, 0, row_bytes);
      } else {
        std::memcpy(to + t * row_bytes, from + index[t] * row_bytes, row_bytes);
      }
    }
  });
}

// Threads share the columns, so each row's sum is in order of t whatever their number.
void CpuOps::EmbeddingGrad(const Tensor& dy, const Tensor& tokens, const Tensor& dtable) {
  const int64_t d = dtable.dim(1), count = tokens.size();
  CheckShape("EmbeddingGrad", dy, {count, d});
  CheckType("EmbeddingGrad", dtable, DataType::kF32);
  const int32_t* row = tokens.data<int32_t>();
  for (int64_t t = 0; t < count; ++t) {
    COHORT_CHECK(row[t] < dtable.dim(0), "EmbeddingGrad: token %d of %s", row[t],
                 dtable.DebugString().c_str());
  }
  WithComputeType("EmbeddingGrad", dy, [&]<typename T>(T) {
    ParallelFor(d, 1 + kElementGrain / (count + 1), kElementAlign, [&](int64_t begin, int64_t end) {
      for (int64_t t = 0; t < count; ++t) {
        if (row[t] < 0) continue;
        KernelsOf<T>().accumulate_state(dy.data<T>() + t * d + begin, 1.0f,
                                        dtable.data<float>() + row[t] * d + begin, end - begin);
      }
    });
  });
}

}  // namespace cohort::runtime
