// Rotary positions on the CPU.
#include "runtime/ops/check_shapes.h"
#include "runtime/ops/cpu/compute_type.h"
#include "runtime/ops/cpu/cpu_ops.h"
#include "runtime/ops/cpu/kernels.h"
#include "runtime/ops/cpu/parallel.h"
#include "runtime/ops/cpu/policy.h"

namespace cohort::runtime {

void CpuOps::Rope(const Tensor& x, const Tensor& positions, const Tensor& table, bool inverse) {
  const int64_t tokens = x.dim(0), heads = x.dim(1), c = x.dim(2);
  COHORT_CHECK(c % 2 == 0, "Rope of %s: an odd head width", x.DebugString().c_str());
  CheckShape("Rope", positions, {tokens});
  CheckShape("Rope", table, {table.dim(0), c});
  const int32_t* position = positions.data<int32_t>();
  for (int64_t t = 0; t < tokens; ++t) {
    COHORT_CHECK(position[t] >= 0 && position[t] < table.dim(0), "Rope: position %d of %s", position[t],
                 table.DebugString().c_str());
  }
  WithComputeType("Rope", x, [&]<typename T>(T) {
    const int64_t grain = 1 + cpu_policy::kElementGrain / (heads * c + 1);
    ParallelFor(tokens, grain, 1, [&](int64_t begin, int64_t end) {
      KernelsOf<T>().rope(x.data<T>() + begin * heads * c, position + begin, table.data<float>(),
                          inverse ? -1.0f : 1.0f, end - begin, heads, c);
    });
  });
}

}  // namespace cohort::runtime
